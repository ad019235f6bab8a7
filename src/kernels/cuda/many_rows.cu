// Layer norm where there are many rows: a warp has a row to itself, so that no thread waits for another warp and a
// row costs a tenth of the instructions, which is what counts there. It follows common.cu and norms.cu in one text.

constexpr int LANE_FOURS = 10;  // of a row of at most 1280 channels
constexpr int ROW_WARPS = 4;    // rows of a block

// What a lane has of a row: four channels of each 128. `then` is run for those that are there.
template <typename Then>
__device__ __forceinline__ void each_four(int width, Then then) {
#pragma unroll
    for (int four = 0; four < LANE_FOURS; ++four) {
        const int channel = (four * 32 + static_cast<int>(threadIdx.x) % 32) * 4;
        if (channel < width) then(four, channel);
    }
}

__device__ __forceinline__ float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

// A row's norm to `plain`, `narrow`, or both; whole warps call it.
template <typename T>
__device__ __forceinline__ void norm_lane(float4 (&row)[LANE_FOURS], int width, Norm norm, float* plain, T* narrow) {
    const float share = quick_quotient(1.f, width);
    float sum = 0.f, squares = 0.f;
    each_four(width, [&](int four, int) { sum += row[four].x + row[four].y + row[four].z + row[four].w; });
    const float mean = warp_sum(sum) * share;
    each_four(width, [&](int four, int) {
        const float4 v = row[four];
        const float4 d = row[four] = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
        squares += d.x * d.x + d.y * d.y + d.z * d.z + d.w * d.w;
    });
    const float scale = quick_inverse_root(warp_sum(squares) * share + EPSILON);
    each_four(width, [&](int four, int channel) {
        const float4 d = row[four], w = load4(norm.weight + channel), b = load4(norm.bias + channel);
        const float4 v = make_float4(d.x * scale * w.x + b.x, d.y * scale * w.y + b.y, d.z * scale * w.z + b.z,
                                     d.w * scale * w.w + b.w);
        if (plain) store4(plain + channel, v);
        if (narrow) store4(narrow + channel, v);
    });
}

// residual_norm of a product in one piece.
template <typename T>
__device__ void residual_norm_many(const float* product, const float* bias, Norm norm, float* x, float* kept, T* normed,
                                   int rows, int width, Ahead ahead) {
    ask(ahead);
    begin();
    const int number = blockIdx.x * ROW_WARPS + threadIdx.x / 32;
    if (number >= rows) return;  // the same for a whole warp
    const Size at = static_cast<Size>(number) * width;
    float4 row[LANE_FOURS], more[LANE_FOURS];
    each_four(width, [&](int four, int channel) { row[four] = load4(x + at + channel); });
    each_four(width, [&](int four, int channel) { more[four] = load4(product + at + channel); });
    each_four(width, [&](int four, int channel) {
        row[four] = plus(plus(more[four], load4(bias + channel)), row[four]);
        store4(x + at + channel, row[four]);
        if (kept) store4(kept + at + channel, row[four]);
    });
    if (normed) norm_lane<T>(row, width, norm, nullptr, normed + at);
}

// norm_rows of all rows.
template <typename T>
__device__ void norm_many(const float* x, Norm norm, float* plain, T* narrow, int rows, int width) {
    begin();
    const int number = blockIdx.x * ROW_WARPS + threadIdx.x / 32;
    if (number >= rows) return;
    const Size at = static_cast<Size>(number) * width;
    float4 row[LANE_FOURS];
    each_four(width, [&](int four, int channel) { row[four] = load4(x + at + channel); });
    norm_lane<T>(row, width, norm, plain ? plain + at : nullptr, narrow ? narrow + at : nullptr);
}
