// Products with few rows: x [rows, depth] · weightᵀ [outputs, depth], where reading the weights takes longer
// than using them and a library's kernels leave most of the card idle. It follows common.cu and
// activation.cu in one text.
//
// A block makes 80 rows (a window has 77) and 32 or 64 columns. Its four warps take another 16 of each 64 of
// the depth, so no value is read from shared memory twice; their sums meet at the end. Weights are asked for
// before the kernel in front is through, everything else after it.
#ifdef TENSOR_CORES

constexpr int PRODUCT_WARPS = 4;
constexpr int TILE_ROWS = 80;
constexpr int DEEP = 64;                 // of the depth in one stage: 128 bytes a row
constexpr int STAGES = 4;                // three on their way while one is used
constexpr int PIECE = 8;                 // values that are copied at once: 16 bytes
constexpr int PIECES = DEEP / PIECE;     // of a row of a stage
constexpr int ROW_BYTES = DEEP * 2;
constexpr int COPIED = 32 * PRODUCT_WARPS / PIECES;  // rows that all threads copy a piece of at once

#ifndef SD_EMULATED
extern __shared__ __align__(128) unsigned char shared_bytes[];
#endif

// What becomes of the sums: bias and non-linearity (none where null and negative) in 16 bits to `narrow`, or as
// they are to `planes`, one plane for each part of the depth.
template <typename T>
struct Finish {
    const float* bias;
    T* narrow;
    float* planes;
    int activation;
};

// A piece's place in a stage. Rows have their pieces in another order each, so that eight rows' same pieces lie
// in different banks; every eighth row has the same.
__device__ __forceinline__ int place_of(int row, int piece) { return row * ROW_BYTES + ((piece ^ (row % 8)) * 16); }

// Begins to copy this thread's piece of every COPIED-th of `ROWS` rows, zeros for those above `there`, for which
// `any` stands in.
template <typename T, int ROWS>
__device__ __forceinline__ void fetch_rows(SharedAt to, const T* from, Size step, int there, const T* any) {
    static_assert(ROWS % COPIED == 0 && COPIED % 8 == 0, "every thread copies the same piece of all its rows");
#pragma unroll
    for (int round = 0; round < ROWS / COPIED; ++round) {
        const bool is_there = round * COPIED < there;
        fetch(to + round * COPIED * ROW_BYTES, is_there ? from + round * step : any, is_there);
    }
}

// The sums of one warp for one stage, 16 of its depth; `x` and `weight` are where this lane's first rows lie.
template <typename T, int COLUMNS>
__device__ __forceinline__ void multiply_stage(float (&sums)[TILE_ROWS / 16][COLUMNS / 8][4], SharedAt x, SharedAt weight) {
    unsigned right[COLUMNS / 16][4];  // low and high depth of eight columns, of the next eight
#pragma unroll
    for (int pair = 0; pair < COLUMNS / 16; ++pair) load_matrices(right[pair], weight + pair * 16 * ROW_BYTES);
#pragma unroll
    for (int tile = 0; tile < TILE_ROWS / 16; ++tile) {
        unsigned left[4];  // upper and lower rows of the low depth, of the high depth
        load_matrices(left, x + tile * 16 * ROW_BYTES);
#pragma unroll
        for (int eight = 0; eight < COLUMNS / 8; ++eight) {
            const unsigned* both = right[eight / 2] + eight % 2 * 2;
            multiply_add(sums[tile][eight], left, both[0], both[1], T());
        }
    }
}

// Four neighbours of one row, finished.
template <typename T, typename Activation>
__device__ __forceinline__ void finish(T* to, float4 sums, float4 bias, Activation activation) {
    store4(to, activated4(plus(sums, bias), activation));
}

// A row of a tile of sums in shared memory: two neighbours of eight rows lie in different banks.
template <int COLUMNS>
constexpr int SUMS_STRIDE = COLUMNS + 8;

template <int COLUMNS>
__device__ __forceinline__ void put_down(const float (&sums)[TILE_ROWS / 16][COLUMNS / 8][4]) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float* own = reinterpret_cast<float*>(shared_bytes) + (warp * TILE_ROWS + g) * SUMS_STRIDE<COLUMNS> + 2 * t;
#pragma unroll
    for (int at = 0; at < TILE_ROWS / 8 * (COLUMNS / 8); ++at) {
        const int half = at / (COLUMNS / 8), eight = at % (COLUMNS / 8);
        const float(&four)[4] = sums[half / 2][eight];
        *reinterpret_cast<float2*>(own + half * 8 * SUMS_STRIDE<COLUMNS> + eight * 8) =
            make_float2(four[half % 2 * 2], four[half % 2 * 2 + 1]);
    }
}

// Adds up what the four warps have, four neighbours a thread, and gives each four to `take` with its row.
template <int COLUMNS, typename Take>
__device__ __forceinline__ void add_up(int rows, Take take) {
    constexpr int FOURS = COLUMNS / 4, PLANE = TILE_ROWS * SUMS_STRIDE<COLUMNS>;
    const float* from = reinterpret_cast<const float*>(shared_bytes) + threadIdx.x % FOURS * 4;
#pragma unroll 2
    for (int row = threadIdx.x / FOURS; row < rows; row += 32 * PRODUCT_WARPS / FOURS) {
        const float* own = from + row * SUMS_STRIDE<COLUMNS>;
        float4 sum = load4(own);
#pragma unroll
        for (int warp = 1; warp < PRODUCT_WARPS; ++warp) sum = plus(sum, load4(own + warp * PLANE));
        take(row, sum);
    }
}

template <typename T, int COLUMNS>
__device__ __forceinline__ void finish_tile(const float (&sums)[TILE_ROWS / 16][COLUMNS / 8][4], const Finish<T>& to,
                                            int first_row, int rows, int outputs, int part) {
    const int column = blockIdx.x * COLUMNS + threadIdx.x % (COLUMNS / 4) * 4;
    const float4 bias = to.bias ? load4(to.bias + column) : make_float4(0.f, 0.f, 0.f, 0.f);
    put_down<COLUMNS>(sums);
    __syncthreads();
    const int here = rows - first_row < TILE_ROWS ? rows - first_row : TILE_ROWS;
    const Size at = static_cast<Size>(first_row) * outputs + column;
    if (to.planes) {
        float* plane = to.planes + static_cast<Size>(part) * rows * outputs + at;
        add_up<COLUMNS>(here, [&](int row, float4 sum) { store4(plane + static_cast<Size>(row) * outputs, sum); });
        return;
    }
    with_activation<T>(to.activation, [&](auto chosen) {
        add_up<COLUMNS>(here, [&](int row, float4 sum) {
            finish(to.narrow + at + static_cast<Size>(row) * outputs, sum, bias, chosen);
        });
    });
}

// Blocks: columns across; rows, and all rows once more for each part of the depth, down.
template <typename T, int COLUMNS>
__device__ void few_rows(const T* x, const T* weight, Finish<T> to, int rows, int depth, int outputs, Ahead ahead) {
    constexpr int X_BYTES = TILE_ROWS * ROW_BYTES, STAGE = X_BYTES + COLUMNS * ROW_BYTES;
    const int row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, parts = gridDim.y / row_tiles;
    const int part = blockIdx.y / row_tiles, first_row = static_cast<int>(blockIdx.y) % row_tiles * TILE_ROWS;
    const int all = depth / DEEP, share = (all + parts - 1) / parts, begun = part * share;
    const int n_stages = all - begun < share ? all - begun : share;

    // What this thread copies of each stage: the same piece of some rows.
    const int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES, there = rows - first_row - row;
    const SharedAt stages = shared_at(shared_bytes), copied = stages + place_of(row, piece);
    const Size step = static_cast<Size>(COPIED) * depth, at = begun * DEEP + piece * PIECE;
    const T* x_from = x + static_cast<Size>(first_row + row) * depth + at;
    const T* weight_from = weight + static_cast<Size>(blockIdx.x * COLUMNS + row) * depth + at;
    const auto fetch_x = [&](int stage) {
        fetch_rows<T, TILE_ROWS>(copied + stage % STAGES * STAGE, x_from + stage * DEEP, step, there, x);
    };
    const auto fetch_weight = [&](int stage) {
        const T* from = weight_from + stage * DEEP;
        fetch_rows<T, COLUMNS>(copied + (stage % STAGES * STAGE + X_BYTES), from, step, COLUMNS, from);
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage)
        if (stage < n_stages) fetch_weight(stage);
    ask(ahead);  // its own matrix comes first
    begin();
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < n_stages) fetch_x(stage);
        close_group();  // also where it is empty: the groups are counted
    }
    // The rows that this lane finds for its warp: the left side's matrices go down, the right side's along first.
    const int warp = threadIdx.x / 32, matrix = threadIdx.x % 32 / 8, line = threadIdx.x % 8;
    const SharedAt left = stages + place_of(matrix % 2 * 8 + line, warp * 2 + matrix / 2);
    const SharedAt right = stages + (X_BYTES + place_of(matrix / 2 * 8 + line, warp * 2 + matrix % 2));
    float sums[TILE_ROWS / 16][COLUMNS / 8][4] = {};
    for (int stage = 0; stage < n_stages; ++stage) {
        await_groups<STAGES - 2>();
        __syncthreads();  // this stage has arrived for all, and all are through with the one before
        if (stage + STAGES - 1 < n_stages) fetch_x(stage + STAGES - 1), fetch_weight(stage + STAGES - 1);
        close_group();
        multiply_stage<T, COLUMNS>(sums, left + stage % STAGES * STAGE, right + stage % STAGES * STAGE);
    }
    await_groups<0>();
    __syncthreads();  // the stages' memory is free
    finish_tile<T, COLUMNS>(sums, to, first_row, rows, outputs, part);
}
#endif
