// Layer norm where there are many rows: a warp has a row to itself, so that no thread waits for another warp and a
// row costs a tenth of the instructions, which is what counts there. It follows common.cu and norms.cu in one text.
//
// A row has 128 channels for each of a lane's `FOURS`: there is no condition around a load, for the compiler would
// wait for each before it asks for the next.

constexpr int ROW_WARPS = 4;  // rows of a block

template <int FOURS>
struct Lane {
    float4 fours[FOURS];
};

// A lane's part of a row; `at` is where its first four lie.
template <int FOURS>
__device__ __forceinline__ Lane<FOURS> load_lane(const float* at) {
    Lane<FOURS> row;
#pragma unroll
    for (int four = 0; four < FOURS; ++four) row.fours[four] = load4(at + four * 128);
    return row;
}
template <int FOURS>
__device__ __forceinline__ void store_lane(float* at, const Lane<FOURS>& row) {
#pragma unroll
    for (int four = 0; four < FOURS; ++four) store4(at + four * 128, row.fours[four]);
}

__device__ __forceinline__ float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

// A row without its mean, and what it is to be multiplied by; whole warps call it.
template <int FOURS>
__device__ __forceinline__ float centered(Lane<FOURS>& row) {
    constexpr float SHARE = 1.f / (FOURS * 128);
    float sum = 0.f, squares = 0.f;
#pragma unroll
    for (const float4& v : row.fours) sum += (v.x + v.y) + (v.z + v.w);
    const float mean = warp_sum(sum) * SHARE;
#pragma unroll
    for (float4& v : row.fours) {
        v = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
        squares += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
    }
    return quick_inverse_root(warp_sum(squares) * SHARE + EPSILON);
}

// What is centered, scaled and shifted, to `plain`, `narrow`, or both.
template <typename T, int FOURS>
__device__ __forceinline__ void put_normed(const Lane<FOURS>& row, float scale, Norm norm, float* plain, T* narrow) {
    const int lane = threadIdx.x % 32 * 4;
    const Lane<FOURS> weight = load_lane<FOURS>(norm.weight + lane), bias = load_lane<FOURS>(norm.bias + lane);
    Lane<FOURS> out;
#pragma unroll
    for (int four = 0; four < FOURS; ++four) {
        const float4 d = row.fours[four], w = weight.fours[four], b = bias.fours[four];
        out.fours[four] = make_float4(d.x * scale * w.x + b.x, d.y * scale * w.y + b.y, d.z * scale * w.z + b.z,
                                      d.w * scale * w.w + b.w);
    }
    if (plain) store_lane(plain, out);
    if (!narrow) return;
#pragma unroll
    for (int four = 0; four < FOURS; ++four) store4(narrow + four * 128, out.fours[four]);
}

// The row of this warp, or one beyond the last.
__device__ __forceinline__ int row_of_warp() { return blockIdx.x * ROW_WARPS + threadIdx.x / 32; }

// residual_norm of a product in one piece.
template <typename T, int FOURS>
__device__ void residual_norm_many(const float* product, const float* bias, Norm norm, float* x, float* kept, T* normed,
                                   int rows, Ahead ahead) {
    ask(ahead);
    begin();
    const int number = row_of_warp(), lane = threadIdx.x % 32 * 4;
    if (number >= rows) return;  // the same for a whole warp
    const Size at = static_cast<Size>(number) * (FOURS * 128) + lane;
    Lane<FOURS> row = load_lane<FOURS>(x + at);
    const Lane<FOURS> more = load_lane<FOURS>(product + at), added = load_lane<FOURS>(bias + lane);
#pragma unroll
    for (int four = 0; four < FOURS; ++four)
        row.fours[four] = plus(plus(more.fours[four], added.fours[four]), row.fours[four]);
    store_lane(x + at, row);
    if (kept) store_lane(kept + at, row);
    if (!normed) return;
    const float scale = centered(row);
    put_normed<T>(row, scale, norm, nullptr, normed + at);
}

// norm_rows of all rows.
template <typename T, int FOURS>
__device__ void norm_many(const float* x, Norm norm, float* plain, T* narrow, int rows) {
    begin();
    const int number = row_of_warp();
    if (number >= rows) return;
    const Size at = static_cast<Size>(number) * (FOURS * 128) + threadIdx.x % 32 * 4;
    Lane<FOURS> row = load_lane<FOURS>(x + at);
    const float scale = centered(row);
    put_normed<T>(row, scale, norm, plain ? plain + at : nullptr, narrow ? narrow + at : nullptr);
}
