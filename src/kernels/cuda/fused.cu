// The fused operations of a CLIP tower. Compiled at run time for the card that is there, so nothing is
// included: types and intrinsics are the compiler's own. A test compiles the same text as C++ with
// SD_EMULATED and runs it thread by thread on a CPU.
//
// Names: x is the f32 residual stream [rows, width]; T is the type of the matrices (f32, f16, bf16) and of
// what goes into a product. A window has 77 rows, a head 64 channels.

using Size = unsigned long long;

constexpr int WINDOW = 77;
constexpr int HEAD = 64;
constexpr float EPSILON = 1e-5f;       // of every layer norm
constexpr unsigned KEPT_ROW = ~0u;     // an id that says: x holds this row's vector already
constexpr unsigned ALL_LANES = ~0u;

struct alignas(2) F16 {
    unsigned short bits;
};
struct alignas(2) BF16 {
    unsigned short bits;
};

#ifndef SD_EMULATED
#define INFINITE __int_as_float(0x7f800000)

__device__ __forceinline__ float widened(F16 value) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value.bits));
    return out;
}
__device__ __forceinline__ F16 narrowed(float value, F16) {
    F16 out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
    return out;
}
__device__ __forceinline__ float widened(BF16 value) {
    return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
__device__ __forceinline__ BF16 narrowed(float value, BF16) {
    BF16 out;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
#else
    const unsigned bits = __float_as_uint(value);
    const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    out.bits = number ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fffu;
#endif
    return out;
}
__device__ __forceinline__ float quick_exponential(float value) { return __expf(value); }

// Where kernels overlap (compute capability 9.0), a kernel starts while the one before it drains. Until this
// returns, nothing that an earlier kernel writes may be read, and nothing written.
__device__ __forceinline__ void await_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may take what room this one leaves; it awaits the end of this one all the same.
__device__ __forceinline__ void allow_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void ask_for_line(const unsigned char* line) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

// d += a · b for a 16 × 16, b 16 × 8, d 16 × 8 spread over a warp.
#if __CUDA_ARCH__ >= 800
#define TENSOR_CORES 1
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, F16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, BF16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
#endif

__device__ __forceinline__ float widened(float value) { return value; }
__device__ __forceinline__ float narrowed(float value, float) { return value; }

// ---- How every kernel begins -----------------------------------------------------------------------

// Memory that the next product reads: it is asked for while the card's memory has nothing else to do.
struct Ahead {
    const unsigned char* from;  // null is nothing
    Size bytes;
};
constexpr int LINE = 128;

// Lines are shared out to all threads of the grid.
__device__ __forceinline__ void begin(Ahead ahead) {
    if (ahead.from) {
        const Size block = static_cast<Size>(blockIdx.y) * gridDim.x + blockIdx.x;
        const Size threads = static_cast<Size>(gridDim.y) * gridDim.x * blockDim.x;
        for (Size line = block * blockDim.x + threadIdx.x; line * LINE < ahead.bytes; line += threads)
            ask_for_line(ahead.from + line * LINE);
    }
    await_previous();
    allow_next();
}

// ---- Four and eight neighbours at once -------------------------------------------------------------

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

template <typename T>
__device__ __forceinline__ float4 load4(const T* from) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    const T a = {static_cast<unsigned short>(words.x)}, b = {static_cast<unsigned short>(words.x >> 16)};
    const T c = {static_cast<unsigned short>(words.y)}, d = {static_cast<unsigned short>(words.y >> 16)};
    return make_float4(widened(a), widened(b), widened(c), widened(d));
}

// The first of two neighbours is in the low half.
template <typename T>
__device__ __forceinline__ unsigned packed(float first, float second) {
    return narrowed(first, T()).bits | static_cast<unsigned>(narrowed(second, T()).bits) << 16;
}

__device__ __forceinline__ void store4(float* to, float4 v) { *reinterpret_cast<float4*>(to) = v; }

template <typename T>
__device__ __forceinline__ void store4(T* to, float4 v) {
    *reinterpret_cast<uint2*>(to) = make_uint2(packed<T>(v.x, v.y), packed<T>(v.z, v.w));
}

__device__ __forceinline__ float4 plus(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// ---- Layer norm of one row, four channels a thread -------------------------------------------------

// The sum over a block of whole warps; every thread gets it. One use of `sums` at a time.
__device__ __forceinline__ float block_sum(float value, float* sums) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    const int n_warps = blockDim.x / 32;
    __syncthreads();  // the sums of the last call are read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float all = 0.f;
    for (int warp = 0; warp < n_warps; ++warp) all += sums[warp];
    return all;
}

struct Norm {
    const float* weight;
    const float* bias;
};

// All threads of the block call it; those with channel >= width hold zeros.
__device__ __forceinline__ float4 normed4(float4 v, int channel, int width, Norm norm, float* sums) {
    const bool mine = channel < width;
    const float mean = block_sum(v.x + v.y + v.z + v.w, sums) / width;
    const float4 d = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
    const float square = mine ? d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w : 0.f;
    const float scale = 1.f / sqrtf(block_sum(square, sums) / width + EPSILON);
    if (!mine) return d;
    const float4 w = load4(norm.weight + channel), b = load4(norm.bias + channel);
    return make_float4(d.x * scale * w.x + b.x, d.y * scale * w.y + b.y, d.z * scale * w.z + b.z,
                       d.w * scale * w.w + b.w);
}

// Token row + position row → x, and its norm. One block a row, width / 4 threads rounded up to warps.
template <typename T>
__device__ void embed_norm(const unsigned* ids, const T* table, const float* positions, Norm norm, float* x, T* normed,
                           int width, Ahead ahead) {
    __shared__ float sums[32];
    begin(ahead);
    const Size row = blockIdx.x;
    const int channel = threadIdx.x * 4;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    float* place = x + row * width + channel;
    if (channel < width) {
        const unsigned id = ids[row];
        v = id == KEPT_ROW ? load4(place) : load4(table + static_cast<Size>(id) * width + channel);
        v = plus(v, load4(positions + (row % WINDOW) * width + channel));
        store4(place, v);
    }
    v = normed4(v, channel, width, norm, sums);
    if (channel < width) store4(normed + row * width + channel, v);
}

// x += product + bias; a copy to `kept` and the norm to `normed` where these are wanted. The product is the sum
// of `planes` parts that lie behind each other.
template <typename T>
__device__ void residual_norm(const float* product, int planes, const float* bias, Norm norm, float* x, float* kept,
                              T* normed, int width, Ahead ahead) {
    __shared__ float sums[32];
    begin(ahead);
    const Size row = blockIdx.x;
    const int channel = threadIdx.x * 4;
    const Size at = row * width + channel;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (channel < width) {
        v = load4(product + at);
#pragma unroll 4
        for (int plane = 1; plane < planes; ++plane)
            v = plus(v, load4(product + static_cast<Size>(plane) * gridDim.x * width + at));
        v = plus(plus(v, load4(bias + channel)), load4(x + at));
        store4(x + at, v);
        if (kept) store4(kept + at, v);
    }
    if (!normed) return;  // the same for all threads
    v = normed4(v, channel, width, norm, sums);
    if (channel < width) store4(normed + at, v);
}

// The norm of every row of x, or of one row of each window where `ends` says which; in f32, in T, or both.
template <typename T>
__device__ void norm_rows(const float* x, const unsigned* ends, Norm norm, float* plain, T* narrow, int width) {
    __shared__ float sums[32];
    begin(Ahead{nullptr, 0});
    const Size to = blockIdx.x;
    const Size row = ends ? to * WINDOW + ends[to] : to;
    const int channel = threadIdx.x * 4;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (channel < width) v = load4(x + row * width + channel);
    v = normed4(v, channel, width, norm, sums);
    if (channel >= width) return;
    if (plain) store4(plain + to * width + channel, v);
    if (narrow) store4(narrow + to * width + channel, v);
}

// ---- Bias and the MLP's non-linearity --------------------------------------------------------------

__device__ __forceinline__ float activated(float x, int activation) {
    if (activation == 0) return x / (1.f + expf(-1.702f * x));                     // quick GELU
    if (activation == 1) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));  // erf GELU
    const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);         // tanh GELU
    return 0.5f * x * (1.f + tanhf(inner));
}

__device__ __forceinline__ float4 activated4(float4 v, int activation) {
    return make_float4(activated(v.x, activation), activated(v.y, activation), activated(v.z, activation),
                       activated(v.w, activation));
}

// Eight neighbours a thread; `in` may be `out`; no bias where it is null.
template <typename T>
__device__ void bias_activate(const T* in, const float* bias, T* out, int width, int activation, Size n_eights,
                              Ahead ahead) {
    begin(ahead);
    const Size eight = static_cast<Size>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (eight >= n_eights) return;
    const Size at = eight * 8;
    float4 a = load4(in + at), b = load4(in + at + 4);
    if (bias) {
        const int channel = at % width;
        a = plus(a, load4(bias + channel));
        b = plus(b, load4(bias + channel + 4));
    }
    store4(out + at, activated4(a, activation));
    store4(out + at + 4, activated4(b, activation));
}

// ---- Causal attention over 77 keys: one block a head of a window -----------------------------------

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
    begin(ahead);
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
constexpr int STRIDE = HEAD + 8;           // of a row in shared memory: no two lanes meet in a bank

__device__ __forceinline__ unsigned word(const unsigned short* rows, int row, int channel) {
    return *reinterpret_cast<const unsigned*>(rows + row * STRIDE + channel);
}
// Two rows of one channel, as b's operand needs neighbours along the keys.
__device__ __forceinline__ unsigned column(const unsigned short* rows, int row, int channel) {
    return rows[row * STRIDE + channel] | static_cast<unsigned>(rows[(row + 1) * STRIDE + channel]) << 16;
}

// Each warp has 16 query rows: scores, softmax and mixed values stay in its registers. Where a fragment's
// element lies (PTX ISA, mma.m16n8k16): with g = lane / 4 and t = lane % 4, row g or g + 8, columns 2t, 2t + 1.
template <typename T>
__device__ void attention_tensor(const T* qkv, const float* bias, const float* hidden, T* mixed, Ahead ahead) {
    begin(ahead);
    __shared__ __align__(16) unsigned short parts[3][PADDED * STRIDE];
    for (int index = threadIdx.x; index < 3 * PADDED * (HEAD / 4); index += 32 * TENSOR_WARPS) {
        const int part = index / (PADDED * (HEAD / 4)), rest = index % (PADDED * (HEAD / 4));
        const int row = rest / (HEAD / 4), channel = rest % (HEAD / 4) * 4;
        const float4 v = row < WINDOW ? qkv4(qkv, bias, part, row, channel) : make_float4(0.f, 0.f, 0.f, 0.f);
        store4(reinterpret_cast<T*>(parts[part]) + row * STRIDE + channel, v);
    }
    __syncthreads();
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int first = warp * 16 + g;  // this lane's rows: first and first + 8

    unsigned query[HEAD / 16][4];
#pragma unroll
    for (int step = 0; step < HEAD / 16; ++step) {
        query[step][0] = word(parts[0], first, step * 16 + 2 * t);
        query[step][1] = word(parts[0], first + 8, step * 16 + 2 * t);
        query[step][2] = word(parts[0], first, step * 16 + 8 + 2 * t);
        query[step][3] = word(parts[0], first + 8, step * 16 + 8 + 2 * t);
    }
    float scores[PADDED / 8][4], top[2] = {-INFINITE, -INFINITE}, sum[2] = {0.f, 0.f};
#pragma unroll
    for (int tile = 0; tile < PADDED / 8; ++tile) {
        float s[4] = {0.f, 0.f, 0.f, 0.f};
        if (tile < 2 * (warp + 1)) {  // later keys are hidden from all rows of this warp
#pragma unroll
            for (int step = 0; step < HEAD / 16; ++step) {
                const unsigned low = word(parts[1], tile * 8 + g, step * 16 + 2 * t);
                const unsigned high = word(parts[1], tile * 8 + g, step * 16 + 8 + 2 * t);
                multiply_add(s, query[step], low, high, T());
            }
        }
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            const int key = tile * 8 + 2 * t + part % 2, row = first + part / 2 * 8;
            const bool seen = key <= row && key < WINDOW;
            const float added = seen && hidden ? hidden[blockIdx.y * WINDOW + key] : 0.f;
            scores[tile][part] = seen ? s[part] * 0.125f + added : -INFINITE;
            top[part / 2] = fmaxf(top[part / 2], scores[tile][part]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 2));
    }
#pragma unroll
    for (int tile = 0; tile < PADDED / 8; ++tile) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            scores[tile][part] = quick_exponential(scores[tile][part] - top[part / 2]);
            sum[part / 2] += scores[tile][part];
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
        sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
    }
    float out[HEAD / 8][4] = {};
#pragma unroll
    for (int step = 0; step < PADDED / 16; ++step) {
        if (step > warp) continue;  // the same for a whole warp
        // The scores of two tiles lie as the next product's left operand needs them.
        const unsigned weights[4] = {packed<T>(scores[2 * step][0], scores[2 * step][1]),
                                     packed<T>(scores[2 * step][2], scores[2 * step][3]),
                                     packed<T>(scores[2 * step + 1][0], scores[2 * step + 1][1]),
                                     packed<T>(scores[2 * step + 1][2], scores[2 * step + 1][3])};
#pragma unroll
        for (int tile = 0; tile < HEAD / 8; ++tile) {
            const unsigned low = column(parts[2], step * 16 + 2 * t, tile * 8 + g);
            const unsigned high = column(parts[2], step * 16 + 8 + 2 * t, tile * 8 + g);
            multiply_add(out[tile], weights, low, high, T());
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first + half * 8;
        if (row >= WINDOW) continue;
        T* place = mixed + (static_cast<Size>(blockIdx.y) * WINDOW + row) * gridDim.x * HEAD + blockIdx.x * HEAD;
#pragma unroll
        for (int tile = 0; tile < HEAD / 8; ++tile) {
            const unsigned pair = packed<T>(out[tile][2 * half] / sum[half], out[tile][2 * half + 1] / sum[half]);
            *reinterpret_cast<unsigned*>(place + tile * 8 + 2 * t) = pair;
        }
    }
}
#endif
