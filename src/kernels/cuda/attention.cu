// Causal attention over 77 keys: one block a head of a window. It follows common.cu in one text.

// Row `row` of the stacked query (part 0), key (1) or value (2) of this block's head, from `channel` on.
template <typename T>
__device__ __forceinline__ float4 qkv4(const T* qkv, const float* bias, int part, int row, int channel) {
    const Size width = static_cast<Size>(gridDim.x) * HEAD;
    const Size column = part * width + blockIdx.x * HEAD + channel;
    const float4 v = load4(qkv + (static_cast<Size>(blockIdx.y) * WINDOW + row) * 3 * width + column);
    return bias ? plus(v, load4(bias + column)) : v;
}

constexpr int PLAIN_WARPS = 8;

// In f32 multiplications, for f32 and for cards without the tensor cores that attention_tensor needs.
template <typename T>
__device__ void attention_plain(const T* qkv, const float* bias, const float* hidden, T* mixed, Ahead ahead) {
    ask(ahead);
    begin();
    __shared__ float keys[WINDOW * (HEAD + 1)];
    __shared__ __align__(16) float values[WINDOW * HEAD];
    __shared__ float queries[PLAIN_WARPS][HEAD];
    __shared__ float weights[PLAIN_WARPS][96];
    for (int index = threadIdx.x; index < WINDOW * HEAD / 4; index += blockDim.x) {
        const int row = index / (HEAD / 4), channel = index % (HEAD / 4) * 4;
        const float4 k = qkv4(qkv, bias, 1, row, channel);
        float* place = keys + row * (HEAD + 1) + channel;
        place[0] = k.x, place[1] = k.y, place[2] = k.z, place[3] = k.w;
        store4(values + row * HEAD + channel, qkv4(qkv, bias, 2, row, channel));
    }
    __syncthreads();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int row = warp; row < WINDOW; row += PLAIN_WARPS) {
        if (lane < HEAD / 4) {
            const float4 q = qkv4(qkv, bias, 0, row, lane * 4);
            float* place = queries[warp] + lane * 4;
            place[0] = q.x, place[1] = q.y, place[2] = q.z, place[3] = q.w;
        }
        __syncwarp();
        float scores[3], top = -INFINITE, sum = 0.f;
        for (int part = 0; part < 3; ++part) {
            const int key = part * 32 + lane;
            scores[part] = -INFINITE;
            if (key <= row) {
                float score = 0.f;
                for (int channel = 0; channel < HEAD; ++channel)
                    score += queries[warp][channel] * keys[key * (HEAD + 1) + channel];
                scores[part] = score * 0.125f + (hidden ? hidden[blockIdx.y * WINDOW + key] : 0.f);
            }
            top = fmaxf(top, scores[part]);
        }
        for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, step));
        for (int part = 0; part < 3; ++part) {
            const float weight = expf(scores[part] - top);
            weights[warp][part * 32 + lane] = weight;
            sum += weight;
        }
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
        __syncwarp();
        float low = 0.f, high = 0.f;
        for (int key = 0; key <= row; ++key) {
            const float weight = weights[warp][key];
            low += weight * values[key * HEAD + lane];
            high += weight * values[key * HEAD + 32 + lane];
        }
        T* place = mixed + (static_cast<Size>(blockIdx.y) * WINDOW + row) * gridDim.x * HEAD + blockIdx.x * HEAD;
        place[lane] = narrowed(low / sum, T());
        place[32 + lane] = narrowed(high / sum, T());
        __syncwarp();
    }
}

#ifdef TENSOR_CORES
constexpr int TENSOR_WARPS = 5;
constexpr int PADDED = 16 * TENSOR_WARPS;  // rows of zeros above 77
constexpr int STRIDE = HEAD + 8;           // of a row in shared memory: eight rows' same channels lie in different banks
constexpr int EIGHTS = HEAD / 8;           // of a row: what a thread loads at once
constexpr int LOADED = 32 * TENSOR_WARPS / EIGHTS;  // rows that all threads load at once

using Parts = unsigned short[3][PADDED * STRIDE];  // query, key, value

__device__ __forceinline__ int place_in(int part, int row, int channel) { return ((part * PADDED + row) * STRIDE + channel) * 2; }

// Eight neighbours and their bias, rounded again.
template <typename T>
__device__ __forceinline__ uint4 plus8(uint4 eight, float4 low, float4 high) {
    const float4 a = plus(widened4<T>(eight.x, eight.y), low), b = plus(widened4<T>(eight.z, eight.w), high);
    return make_uint4(packed<T>(a.x, a.y), packed<T>(a.z, a.w), packed<T>(b.x, b.y), packed<T>(b.z, b.w));
}

// Query, key and value with their bias, zeros below the last row. All is asked for before any of it is used.
template <typename T>
__device__ __forceinline__ void gather(const T* qkv, const float* bias, Parts& parts) {
    const Size width = static_cast<Size>(gridDim.x) * HEAD;
    const int first = threadIdx.x / EIGHTS, channel = threadIdx.x % EIGHTS * 8;
    const Size column = blockIdx.x * HEAD + channel;
    float4 added[3][2] = {};
#pragma unroll
    for (int half = 0; half < 6; ++half)
        if (bias) added[half / 2][half % 2] = load4(bias + half / 2 * width + column + half % 2 * 4);
    begin();
    const T* rows = qkv + static_cast<Size>(blockIdx.y) * WINDOW * 3 * width + column;
    uint4 taken[PADDED / LOADED][3];
#pragma unroll
    for (int round = 0; round < PADDED / LOADED; ++round) {
        // The last row in place of those beyond it: with a condition around some loads the compiler holds them back.
        const int there = first + round * LOADED, row = there < WINDOW ? there : WINDOW - 1;
#pragma unroll
        for (int part = 0; part < 3; ++part) taken[round][part] = load8(rows + row * 3 * width + part * width);
    }
    __syncwarp();  // what is below waits here, and not between two loads
#pragma unroll
    for (int round = 0; round < PADDED / LOADED; ++round) {
        const int row = first + round * LOADED;
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            const uint4 eight = row < WINDOW ? plus8<T>(taken[round][part], added[part][0], added[part][1]) : make_uint4(0, 0, 0, 0);
            *reinterpret_cast<uint4*>(parts[part] + row * STRIDE + channel) = eight;
        }
    }
}

// Each warp has 16 query rows: scores, softmax and mixed values stay in its registers. Where a fragment's
// element lies (PTX ISA, mma.m16n8k16): with g = lane / 4 and t = lane % 4, row g or g + 8, columns 2t, 2t + 1.
using Scores = float[PADDED / 8][4];

// Query times keys, as far as any row of the warp may see.
template <typename T>
__device__ __forceinline__ void multiply_keys(Scores& scores, SharedAt parts) {
    const int warp = threadIdx.x / 32, matrix = threadIdx.x % 32 / 8, line = threadIdx.x % 8;
    const SharedAt queries = parts + place_in(0, warp * 16 + matrix % 2 * 8 + line, matrix / 2 * 8);
    const SharedAt all_keys = parts + place_in(1, line, matrix * 8);
    unsigned query[HEAD / 16][4];
#pragma unroll
    for (int step = 0; step < HEAD / 16; ++step) load_matrices(query[step], queries + place_in(0, 0, step * 16));
#pragma unroll
    for (int tile = 0; tile < PADDED / 8; ++tile) {
        if (tile >= 2 * (warp + 1)) continue;  // the same for a whole warp
#pragma unroll
        for (int pair = 0; pair < HEAD / 32; ++pair) {
            unsigned keys[4];  // low and high channels of a step, of the next
            load_matrices(keys, all_keys + place_in(0, tile * 8, pair * 32));
            multiply_add(scores[tile], query[2 * pair], keys[0], keys[1], T());
            multiply_add(scores[tile], query[2 * pair + 1], keys[2], keys[3], T());
        }
    }
}

// Scores → exponentials of each row, its largest 1; their sums.
__device__ __forceinline__ void exponentials(Scores& scores, const float* hidden, float (&sum)[2]) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float top[2] = {-INFINITE, -INFINITE};
#pragma unroll
    for (int at = 0; at < PADDED / 2; ++at) {
        const int key = at / 4 * 8 + 2 * t + at % 2, row = warp * 16 + g + at % 4 / 2 * 8;
        float& score = scores[at / 4][at % 4];
        score = key <= row && key < WINDOW ? score * 0.125f : -INFINITE;
    }
    if (hidden) {
#pragma unroll
        for (int at = 0; at < PADDED / 2; ++at) {
            const int key = at / 4 * 8 + 2 * t + at % 2;
            if (key < WINDOW) scores[at / 4][at % 4] += hidden[blockIdx.y * WINDOW + key];
        }
    }
#pragma unroll
    for (int at = 0; at < PADDED / 2; ++at) top[at % 4 / 2] = fmaxf(top[at % 4 / 2], scores[at / 4][at % 4]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 2));
    }
#pragma unroll
    for (int at = 0; at < PADDED / 2; ++at) {
        float& score = scores[at / 4][at % 4];
        score = quick_exponential(score - top[at % 4 / 2]);
        sum[at % 4 / 2] += score;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
        sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
    }
}

// Exponentials times values, as far as the warp's rows see.
template <typename T>
__device__ __forceinline__ void mix(float (&out)[HEAD / 8][4], const Scores& scores, SharedAt parts) {
    const int warp = threadIdx.x / 32, matrix = threadIdx.x % 32 / 8, line = threadIdx.x % 8;
    const SharedAt all_values = parts + place_in(2, matrix % 2 * 8 + line, matrix / 2 * 8);
#pragma unroll
    for (int step = 0; step < PADDED / 16; ++step) {
        if (step > warp) continue;  // the same for a whole warp
        // The scores of two tiles lie as the next product's left operand needs them.
        const float(&low)[4] = scores[2 * step], (&high)[4] = scores[2 * step + 1];
        const unsigned weights[4] = {packed<T>(low[0], low[1]), packed<T>(low[2], low[3]), packed<T>(high[0], high[1]),
                                     packed<T>(high[2], high[3])};
#pragma unroll
        for (int pair = 0; pair < HEAD / 16; ++pair) {
            unsigned values[4];  // low and high keys of eight channels, of the next eight
            load_matrices_turned(values, all_values + place_in(0, step * 16, pair * 16));
            multiply_add(out[2 * pair], weights, values[0], values[1], T());
            multiply_add(out[2 * pair + 1], weights, values[2], values[3], T());
        }
    }
}

template <typename T>
__device__ void attention_tensor(const T* qkv, const float* bias, const float* hidden, T* mixed, Ahead ahead) {
    __shared__ __align__(16) Parts parts;
    ask(ahead);
    gather<T>(qkv, bias, parts);
    __syncthreads();
    Scores scores = {};
    float sum[2] = {0.f, 0.f}, out[HEAD / 8][4] = {};
    multiply_keys<T>(scores, shared_at(parts));
    exponentials(scores, hidden, sum);
    mix<T>(out, scores, shared_at(parts));
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = warp * 16 + g + half * 8;
        if (row >= WINDOW) continue;
        const float scale = 1.f / sum[half];
        T* to = mixed + (static_cast<Size>(blockIdx.y) * WINDOW + row) * gridDim.x * HEAD + blockIdx.x * HEAD;
#pragma unroll
        for (int tile = 0; tile < HEAD / 8; ++tile) {
            const unsigned pair = packed<T>(out[tile][2 * half] * scale, out[tile][2 * half + 1] * scale);
            *reinterpret_cast<unsigned*>(to + tile * 8 + 2 * t) = pair;
        }
    }
}
#endif
