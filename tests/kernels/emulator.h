// A block of CUDA threads on one CPU thread: each thread is a context of its own that runs until it must
// wait for others (a barrier, a shuffle, a product of fragments). Enough of CUDA C++ for our kernels.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <vector>

#include "switch.h"

#define SD_EMULATED 1
#define TENSOR_CORES 1
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n)
#define INFINITE (std::numeric_limits<float>::infinity())

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
struct Dim { int x, y; };

namespace emulator {

constexpr int MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10;

struct Warp {
    int arrived = 0, generation = 0;
    // What each lane brings. Every other time the other half: who reads this one is through with it when
    // all meet the next time.
    uint32_t brought[2][32][8];
    const unsigned char* rows[2][32];
    float left[2][16][16], right[2][8][16];  // factors of a product of fragments, the depth last
};

// A copy to shared memory that has begun. It is made when it is awaited, as late as a card may make it, or
// with EMULATED_COPIES=early at once.
struct Copy {
    unsigned char* to;
    const void* from;
    bool there;
};

struct Copies {
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

struct State {
    Context scheduler, threads[MOST_THREADS];
    std::vector<char> stacks[MOST_THREADS];
    bool done[MOST_THREADS], awaited[MOST_THREADS];
    Copies copies[MOST_THREADS];
    Warp warps[MOST_THREADS / 32];
    int n_threads, n_done, current, arrived, generation;
    long steps;  // arrivals and departures of threads at what they wait for
    std::function<void()> body;
};
inline State state;

inline void wait() { go(state.threads[state.current], state.scheduler); }

inline void stop(const char* why) { std::fprintf(stderr, "%s\n", why), std::exit(3); }

// Lines that were asked for ahead.
inline std::vector<const unsigned char*> asked;

constexpr size_t SHARED = 100 << 10;  // bytes that a kernel may ask for on every card with tensor cores

inline void trampoline() {
    state.body();
    if (!state.awaited[state.current]) stop("a thread did not await the kernel before");
    if (!state.copies[state.current].groups.empty()) stop("a copy to shared memory was not awaited");
    state.done[state.current] = true;
    state.n_done++;
    wait();
}

// A barrier of `n`: the last to arrive lets all go on.
inline void meet(int& arrived, int& generation, int n) {
    const int mine = generation;
    state.steps++;
    if (++arrived == n) {
        arrived = 0;
        generation++;
        return;
    }
    while (generation == mine) wait();
    state.steps++;
}

inline bool chosen(const char* variable, const char* value) {
    const char* given = std::getenv(variable);
    return given && std::strcmp(given, value) == 0;
}

// Results must be the same in all of these: what differs is a race. EMULATED_ORDER=backwards: the last thread
// goes first. EMULATED_PACE=warps: a warp goes as far as it can, up to a barrier of the block, before another
// begins; else all go from one meeting to the next.
inline const bool backwards = chosen("EMULATED_ORDER", "backwards");
inline const bool warp_by_warp = chosen("EMULATED_PACE", "warps");
inline const bool copies_early = chosen("EMULATED_COPIES", "early");

inline void make(const Copy& copy) {
    if (copy.there) std::memcpy(copy.to, copy.from, 16);
    else std::memset(copy.to, 0, 16);
}

inline Warp& warp() { return state.warps[state.current / 32]; }
inline int lane() { return state.current % 32; }
inline void meet_warp() { meet(warp().arrived, warp().generation, 32); }
inline auto& words() { return warp().brought[warp().generation % 2]; }
inline auto& rows() { return warp().rows[warp().generation % 2]; }

}  // namespace emulator

alignas(128) inline unsigned char shared_bytes[emulator::SHARED];
inline void await_previous() { emulator::state.awaited[emulator::state.current] = true; }
inline void allow_next() {}
inline void ask_for_line(const unsigned char* line) { emulator::asked.push_back(line); }
using SharedAt = unsigned char*;
inline SharedAt shared_at(const void* at) { return static_cast<SharedAt>(const_cast<void*>(at)); }
inline void fetch(SharedAt to, const void* from, bool there) {
    if (to < shared_bytes || to + 16 > shared_bytes + emulator::SHARED) emulator::stop("a copy beyond shared memory");
    if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16) emulator::stop("a copy of odd places");
    const emulator::Copy copy{to, from, there};
    if (emulator::copies_early) emulator::make(copy);
    else emulator::state.copies[emulator::state.current].open.push_back(copy);
}
inline void close_group() {
    auto& copies = emulator::state.copies[emulator::state.current];
    copies.groups.push_back(std::move(copies.open));
    copies.open.clear();
}
template <int PENDING>
void await_groups() {
    auto& groups = emulator::state.copies[emulator::state.current].groups;
    for (; groups.size() > PENDING; groups.pop_front())
        for (const auto& copy : groups.front()) emulator::make(copy);
}
namespace emulator {
// What a lane gets of each matrix: a value and its neighbour in the row, or the one below it.
inline void load_fragments(unsigned (&out)[4], SharedAt row, int first_row, int first_byte, bool below) {
    auto& places = rows();
    if (reinterpret_cast<uintptr_t>(row) % 16) stop("a matrix row of an odd place");
    places[lane()] = row;
    meet_warp();
    for (int matrix = 0; matrix < 4; ++matrix) {
        const unsigned char* const* own = places + matrix * 8 + first_row;
        std::memcpy(&out[matrix], own[0] + first_byte, 2);
        std::memcpy(reinterpret_cast<char*>(&out[matrix]) + 2, below ? own[1] + first_byte : own[0] + first_byte + 2, 2);
    }
}
}  // namespace emulator
inline void load_matrices(unsigned (&out)[4], SharedAt row) {
    emulator::load_fragments(out, row, emulator::lane() / 4, emulator::lane() % 4 * 4, false);
}
inline void load_matrices_turned(unsigned (&out)[4], SharedAt row) {
    emulator::load_fragments(out, row, emulator::lane() % 4 * 2, emulator::lane() / 4 * 2, true);
}

inline Dim blockIdx, gridDim, blockDim;
struct ThreadIndex {
    struct X {
        operator int() const { return emulator::state.current; }
    } x;
};
inline ThreadIndex threadIdx;

inline void __syncthreads() {
    emulator::meet(emulator::state.arrived, emulator::state.generation, emulator::state.n_threads);
}
inline void __syncwarp() { emulator::meet_warp(); }
inline float __shfl_xor_sync(unsigned, float value, int step) {
    auto& words = emulator::words();
    std::memcpy(&words[emulator::lane()][0], &value, 4);
    emulator::meet_warp();
    float out;
    std::memcpy(&out, &words[emulator::lane() ^ step][0], 4);
    return out;
}

// Numbers of 16 bits, rounded to nearest even.
struct F16;
struct BF16;
float widened(F16);
float widened(BF16);
F16 narrowed(float, F16);
BF16 narrowed(float, BF16);
inline float quick_exponential(float value) { return std::exp(value); }
inline float quick_quotient(float of, float by) { return std::fabs(by) > std::ldexp(1.f, 126) ? of * 0.f : of / by; }
inline float quick_inverse_root(float value) { return 1.f / std::sqrt(value); }
inline float fmaxf(float a, float b) { return std::fmax(a, b); }
template <typename T>
void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T);

#include "common.cu"
#include "norms.cu"
#include "activation.cu"
#include "many_rows.cu"
#include "attention.cu"
#include "few_rows.cu"

inline float from_bits(uint32_t bits) {
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
inline uint32_t bits_of(float value) {
    uint32_t out;
    std::memcpy(&out, &value, 4);
    return out;
}
inline float widened(BF16 value) { return from_bits(uint32_t(value.bits) << 16); }
inline BF16 narrowed(float value, BF16) {
    const uint32_t bits = bits_of(value);
    if (std::isnan(value)) return {0x7fff};
    return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline const std::vector<float> all_halves = [] {
    std::vector<float> table(65536);
    for (int bits = 0; bits < 65536; ++bits) {
        const int exponent = bits >> 10 & 31, fraction = bits & 1023;
        const float sign = bits >> 15 ? -1.f : 1.f;
        if (exponent == 31) table[bits] = fraction ? std::nanf("") : sign * INFINITE;
        else if (exponent == 0) table[bits] = sign * std::ldexp(float(fraction), -24);
        else table[bits] = sign * std::ldexp(float(1024 + fraction), exponent - 25);
    }
    return table;
}();
inline float widened(F16 value) { return all_halves[value.bits]; }
inline F16 narrowed(float value, F16) {
    const unsigned sign = std::signbit(value) ? 0x8000 : 0;
    const float size = std::fabs(value);
    unsigned bits;
    if (std::isnan(value)) bits = 0x7fff;
    else if (size >= 65520.f) bits = 0x7c00;
    else if (size < std::ldexp(1.f, -14)) bits = unsigned(std::nearbyint(std::ldexp(size, 24)));
    else {
        int exponent;
        const float fraction = std::frexp(size, &exponent);  // in [0.5, 1)
        bits = unsigned((exponent + 13) << 10) + unsigned(std::nearbyint(std::ldexp(fraction, 11))) ;
    }
    return {static_cast<unsigned short>(sign | bits)};
}

// mma.m16n8k16 by its definition: every lane puts its pieces of a and b where they belong (PTX ISA, "Matrix
// Fragments for mma.m16n8k16 with floating point type"), and then makes its four sums.
template <typename T>
void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
    auto& warp = emulator::warp();
    auto& left = warp.left[warp.generation % 2];
    auto& right = warp.right[warp.generation % 2];
    const int g = emulator::lane() / 4, t = emulator::lane() % 4;
    const auto half = [](uint32_t word, int high) { return widened(T{static_cast<unsigned short>(word >> 16 * high)}); };
    for (int high = 0; high < 2; ++high) {
        for (int word = 0; word < 4; ++word) left[g + word % 2 * 8][word / 2 * 8 + 2 * t + high] = half(a[word], high);
        right[g][2 * t + high] = half(b0, high);
        right[g][8 + 2 * t + high] = half(b1, high);
    }
    emulator::meet_warp();
    for (int part = 0; part < 4; ++part) {
        const float *row = left[g + part / 2 * 8], *column = right[2 * t + part % 2];
        float sum = d[part];
        for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
        d[part] = sum;
    }
}

namespace emulator {

// Each thread of some that are not done goes on until it must wait.
inline void pass(int first, int n) {
    for (int turn = 0; turn < n; ++turn) {
        state.current = first + (backwards ? n - 1 - turn : turn);
        if (!state.done[state.current]) go(state.scheduler, state.threads[state.current]);
    }
}

// One warp after the other, each as far as it comes alone.
inline void pass_warps(int n_threads) {
    const int n = (n_threads + 31) / 32;
    for (int turn = 0; turn < n; ++turn) {
        const int first = (backwards ? n - 1 - turn : turn) * 32;
        for (long before = -1; before != state.steps;) {
            before = state.steps;
            pass(first, std::min(32, n_threads - first));
        }
    }
}

inline void run_block(int n_threads) {
    state.n_threads = n_threads;
    state.n_done = state.arrived = state.generation = 0;
    for (auto& warp : state.warps) warp.arrived = warp.generation = 0;
    for (int thread = 0; thread < n_threads; ++thread) {
        state.done[thread] = state.awaited[thread] = false;
        state.copies[thread] = {};
        state.stacks[thread].resize(STACK);
        begin(state.threads[thread], state.stacks[thread].data(), STACK, trampoline);
    }
    for (long idle = 0; state.n_done < n_threads;) {
        const int before = state.n_done;
        if (warp_by_warp) pass_warps(n_threads);
        else pass(0, n_threads);
        idle = state.n_done == before ? idle + 1 : 0;
        if (idle > 10000000) std::fprintf(stderr, "threads wait for each other\n"), std::exit(3);
    }
    // A thread that left while others wait at a barrier of the block would hang a card.
    if (state.arrived != 0) std::fprintf(stderr, "not all threads met\n"), std::exit(3);
}

inline void launch(int grid_x, int grid_y, int n_threads, std::function<void()> body) {
    state.body = std::move(body);
    asked.clear();
    std::memset(shared_bytes, 0xff, SHARED);  // no numbers
    gridDim = {grid_x, grid_y};
    blockDim = {n_threads, 1};
    for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++) run_block(n_threads);
}

}  // namespace emulator
