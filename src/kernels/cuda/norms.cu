// Layer norm of rows, with what comes in front of it: one block a row, four channels a thread, width / 4 threads
// rounded up to warps (many rows: many_rows.cu). It follows common.cu in one text.

struct Norm {
    const float* weight;
    const float* bias;
};

// A norm's four channels, read before they are needed.
struct Norm4 {
    float4 weight, bias;
};
__device__ __forceinline__ Norm4 norm4(Norm norm, int channel, int width) {
    const float4 none = make_float4(0.f, 0.f, 0.f, 0.f);
    if (channel >= width) return {none, none};
    return {load4(norm.weight + channel), load4(norm.bias + channel)};
}

// The sum over a block of whole warps; every thread gets it. `sums` has 32 places that nobody else uses.
__device__ __forceinline__ float block_sum(float value, float* sums) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    const int n_warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float all = 0.f;
    for (int warp = 0; warp < n_warps; ++warp) all += sums[warp];
    return all;
}

// All threads of the block call it, once; those with channel >= width hold zeros.
__device__ __forceinline__ float4 normed4(float4 v, int channel, int width, Norm4 norm) {
    __shared__ float sums[2][32];
    const bool mine = channel < width;
    const float share = 1.f / width;  // waits for no value of the row
    const float mean = block_sum(v.x + v.y + v.z + v.w, sums[0]) * share;
    const float4 d = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
    const float square = mine ? d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w : 0.f;
    const float scale = quick_inverse_root(block_sum(square, sums[1]) * share + EPSILON);
    const float4 w = norm.weight, b = norm.bias;
    return make_float4(d.x * scale * w.x + b.x, d.y * scale * w.y + b.y, d.z * scale * w.z + b.z,
                       d.w * scale * w.w + b.w);
}

// Token row + position row → x, and its norm.
template <typename T>
__device__ void embed_norm(const unsigned* ids, const T* table, const float* positions, Norm norm, float* x, T* normed,
                           int width, Ahead ahead) {
    const Size row = blockIdx.x;
    const int channel = threadIdx.x * 4;
    ask(ahead);
    const Norm4 by = norm4(norm, channel, width);
    begin();
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    float* place = x + row * width + channel;
    if (channel < width) {
        const unsigned id = ids[row];
        v = id == KEPT_ROW ? load4(place) : load4(table + static_cast<Size>(id) * width + channel);
        v = plus(v, load4(positions + (row % WINDOW) * width + channel));
        store4(place, v);
    }
    v = normed4(v, channel, width, by);
    if (channel < width) store4(normed + row * width + channel, v);
}

// The sum of the parts of a product, which lie behind each other: all are asked for before the first is added. No
// condition is around a load, for the compiler would wait for each before it asks for the next.
template <int PLANES>
__device__ __forceinline__ float4 sum4(const float* first, Size plane_size) {
    float4 part[PLANES];
#pragma unroll
    for (int plane = 0; plane < PLANES; ++plane) part[plane] = load4(first + plane * plane_size);
    float4 sum = part[0];
#pragma unroll
    for (int plane = 1; plane < PLANES; ++plane) sum = plus(sum, part[plane]);
    return sum;
}

// The same of so many parts as `tiles.rs` makes of a product.
template <int MOST_PLANES>
__device__ __forceinline__ float4 product4(const float* first, int planes, Size plane_size) {
    if constexpr (MOST_PLANES == 1) return load4(first);
    switch (planes) {
        case 1: return load4(first);
        case 2: return sum4<2>(first, plane_size);
        case 3: return sum4<3>(first, plane_size);
        case 4: return sum4<4>(first, plane_size);
        case 6: return sum4<6>(first, plane_size);
        default: return sum4<8>(first, plane_size);
    }
}

// x += product + bias; a copy to `kept` and the norm to `normed` where these are wanted. The product is the sum
// of `planes` parts.
template <typename T, int MOST_PLANES>
__device__ __forceinline__ void residual_norm(const float* product, int planes, const float* bias, Norm norm, float* x,
                                              float* kept, T* normed, int width, Ahead ahead) {
    const int channel = threadIdx.x * 4;
    const bool mine = channel < width;
    ask(ahead);
    const Norm4 by = norm4(norm, normed ? channel : width, width);
    const float4 added = mine ? load4(bias + channel) : make_float4(0.f, 0.f, 0.f, 0.f);
    begin();
    const Size at = static_cast<Size>(blockIdx.x) * width + channel, plane_size = static_cast<Size>(gridDim.x) * width;
    float4 v = added;
    if (mine) {
        const float4 before = load4(x + at);
        v = product4<MOST_PLANES>(product + at, planes, plane_size);
        v = plus(plus(v, added), before);
        store4(x + at, v);
        if (kept) store4(kept + at, v);
    }
    if (!normed) return;  // the same for all threads
    v = normed4(v, channel, width, by);
    if (mine) store4(normed + at, v);
}

// The norm of every row of x, or of one row of each window where `ends` says which; in f32, in T, or both.
template <typename T>
__device__ void norm_rows(const float* x, const unsigned* ends, Norm norm, float* plain, T* narrow, int width) {
    const Size to = blockIdx.x;
    const int channel = threadIdx.x * 4;
    const Norm4 by = norm4(norm, channel, width);
    begin();
    const Size row = ends ? to * WINDOW + ends[to] : to;
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (channel < width) v = load4(x + row * width + channel);
    v = normed4(v, channel, width, by);
    if (channel >= width) return;
    if (plain) store4(plain + to * width + channel, v);
    if (narrow) store4(narrow + to * width + channel, v);
}
