// Products with few rows: x [rows, depth] · weightᵀ [outputs, depth], where reading the weights takes longer
// than using them and a library's kernels leave most of the card idle. It follows fused.cu in one text.
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

#ifndef SD_EMULATED
extern __shared__ __align__(128) unsigned char shared_bytes[];

__device__ __forceinline__ unsigned shared_address(const void* at) {
    Size address;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(address) : "l"(at));
    return static_cast<unsigned>(address);
}
// Begins to copy 16 bytes to shared memory, or puts zeros there.
__device__ __forceinline__ void fetch(unsigned char* to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all groups of this thread but the last `PENDING` have arrived.
template <int PENDING>
__device__ __forceinline__ void await_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
// Four 8 × 8 matrices of 16 bits: lane l says where row l % 8 of matrix l / 8 lies, and gets of each matrix row
// l / 4, columns 2 (l % 4) and the next.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const unsigned char* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
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
// in different banks.
__device__ __forceinline__ int place_of(int row, int piece) { return row * ROW_BYTES + ((piece ^ (row % 8)) * 16); }

// Begins to copy DEEP columns of `ROWS` rows, zeros where a row is not there.
template <typename T, int ROWS>
__device__ __forceinline__ void fetch_rows(unsigned char* to, const T* from, int there, int depth) {
    static_assert(ROWS * PIECES % (32 * PRODUCT_WARPS) == 0, "every thread copies as many pieces");
#pragma unroll
    for (int round = 0; round < ROWS * PIECES / (32 * PRODUCT_WARPS); ++round) {
        const int index = round * 32 * PRODUCT_WARPS + threadIdx.x;
        const int row = index / PIECES, piece = index % PIECES;
        const bool is_there = row < there;
        const T* place = from + static_cast<Size>(is_there ? row : 0) * depth + piece * PIECE;
        fetch(to + place_of(row, piece), place, is_there);
    }
}

// The sums of one warp for one stage: 16 of its depth.
template <typename T, int COLUMNS>
__device__ __forceinline__ void multiply_stage(float (&sums)[TILE_ROWS / 16][COLUMNS / 8][4], const unsigned char* x,
                                               const unsigned char* weight) {
    const int warp = threadIdx.x / 32, matrix = threadIdx.x % 32 / 8, line = threadIdx.x % 8;
    unsigned right[COLUMNS / 16][4];  // low and high depth of eight columns, of the next eight
#pragma unroll
    for (int pair = 0; pair < COLUMNS / 16; ++pair) {
        const int column = pair * 16 + matrix / 2 * 8 + line;
        load_matrices(right[pair], weight + place_of(column, warp * 2 + matrix % 2));
    }
#pragma unroll
    for (int tile = 0; tile < TILE_ROWS / 16; ++tile) {
        unsigned left[4];  // upper and lower rows of the low depth, of the high depth
        load_matrices(left, x + place_of(tile * 16 + matrix % 2 * 8 + line, warp * 2 + matrix / 2));
#pragma unroll
        for (int eight = 0; eight < COLUMNS / 8; ++eight) {
            const unsigned* both = right[eight / 2] + eight % 2 * 2;
            multiply_add(sums[tile][eight], left, both[0], both[1], T());
        }
    }
}

// Two neighbours of one row, finished.
template <typename T>
__device__ __forceinline__ void finish(const Finish<T>& to, Size plane, Size at, int column, float first, float second) {
    if (to.planes) {
        *reinterpret_cast<float2*>(to.planes + plane + at) = make_float2(first, second);
        return;
    }
    if (to.bias) first += to.bias[column], second += to.bias[column + 1];
    if (to.activation >= 0) first = activated(first, to.activation), second = activated(second, to.activation);
    *reinterpret_cast<unsigned*>(to.narrow + at) = packed<T>(first, second);
}

// Adds up what the four warps have; each finishes a quarter of the columns.
template <typename T, int COLUMNS>
__device__ __forceinline__ void finish_tile(const float (&sums)[TILE_ROWS / 16][COLUMNS / 8][4], const Finish<T>& to,
                                            int first_row, int rows, int outputs, int part) {
    constexpr int TILES = TILE_ROWS / 16, OWN = COLUMNS / 8 / PRODUCT_WARPS, VALUES = TILES * OWN * 4;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* room = reinterpret_cast<float*>(shared_bytes);
    float own[TILES][OWN][4];
#pragma unroll
    for (int owner = 0; owner < PRODUCT_WARPS; ++owner) {
        float* given = room + (owner * (PRODUCT_WARPS - 1) + (warp < owner ? warp : warp - 1)) * VALUES * 32 + lane;
#pragma unroll
        for (int value = 0; value < VALUES; ++value) {
            const int tile = value / (OWN * 4), eight = value / 4 % OWN, place = value % 4;
            const float sum = sums[tile][owner * OWN + eight][place];
            if (owner == warp) own[tile][eight][place] = sum;
            else given[value * 32] = sum;
        }
    }
    __syncthreads();
    const float* given = room + warp * (PRODUCT_WARPS - 1) * VALUES * 32 + lane;
    const Size plane = static_cast<Size>(part) * rows * outputs;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
        for (int eight = 0; eight < OWN; ++eight) {
            const int column = blockIdx.x * COLUMNS + (warp * OWN + eight) * 8 + lane % 4 * 2;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = first_row + tile * 16 + half * 8 + lane / 4;
                float pair[2];
#pragma unroll
                for (int place = 0; place < 2; ++place) {
                    const int value = (tile * OWN + eight) * 4 + half * 2 + place;
                    pair[place] = own[tile][eight][half * 2 + place];
                    for (int other = 0; other < PRODUCT_WARPS - 1; ++other)
                        pair[place] += given[(other * VALUES + value) * 32];
                }
                const Size at = static_cast<Size>(row) * outputs + column;
                if (row < rows) finish(to, plane, at, column, pair[0], pair[1]);
            }
        }
    }
}

// Blocks: columns across; rows, and all rows once more for each part of the depth, down.
template <typename T, int COLUMNS>
__device__ void few_rows(const T* x, const T* weight, Finish<T> to, int rows, int depth, int outputs) {
    constexpr int X_BYTES = TILE_ROWS * ROW_BYTES, STAGE = X_BYTES + COLUMNS * ROW_BYTES;
    const int row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, parts = gridDim.y / row_tiles;
    const int part = blockIdx.y / row_tiles, first_row = static_cast<int>(blockIdx.y) % row_tiles * TILE_ROWS;
    const int all = depth / DEEP, share = (all + parts - 1) / parts, begun = part * share;
    const int n_stages = all - begun < share ? all - begun : share;
    const T* x_from = x + static_cast<Size>(first_row) * depth + begun * DEEP;
    const T* weight_from = weight + static_cast<Size>(blockIdx.x) * COLUMNS * depth + begun * DEEP;
    const auto stage_at = [](int stage) { return shared_bytes + stage % STAGES * STAGE; };
    const auto fetch_x = [&](int stage) {
        fetch_rows<T, TILE_ROWS>(stage_at(stage), x_from + stage * DEEP, rows - first_row, depth);
    };
    const auto fetch_weight = [&](int stage) {
        fetch_rows<T, COLUMNS>(stage_at(stage) + X_BYTES, weight_from + stage * DEEP, COLUMNS, depth);
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage)
        if (stage < n_stages) fetch_weight(stage);
    await_previous();
    allow_next();
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < n_stages) fetch_x(stage);
        close_group();  // also where it is empty: the groups are counted
    }
    float sums[TILE_ROWS / 16][COLUMNS / 8][4] = {};
    for (int stage = 0; stage < n_stages; ++stage) {
        await_groups<STAGES - 2>();
        __syncthreads();  // this stage has arrived for all, and all are through with the one before
        if (stage + STAGES - 1 < n_stages) fetch_x(stage + STAGES - 1), fetch_weight(stage + STAGES - 1);
        close_group();
        multiply_stage<T, COLUMNS>(sums, stage_at(stage), stage_at(stage) + X_BYTES);
    }
    await_groups<0>();
    __syncthreads();  // the stages' memory is free
    finish_tile<T, COLUMNS>(sums, to, first_row, rows, outputs, part);
}
#endif
