// What the kernels of a CLIP tower share. They are compiled at run time for the card that is there, with this in
// front, as two texts (`plan/source.rs`); nothing is included: types and intrinsics are the compiler's own. A test
// compiles the same files as C++ with SD_EMULATED and runs them thread by thread on a CPU.
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
// To a few of f32's last places, which 16 bits do not have.
__device__ __forceinline__ float quick_exponential(float value) { return __expf(value); }
__device__ __forceinline__ float quick_quotient(float of, float by) { return __fdividef(of, by); }
__device__ __forceinline__ float quick_inverse_root(float value) { return rsqrtf(value); }

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

// A place in shared memory.
using SharedAt = unsigned;
__device__ __forceinline__ SharedAt shared_at(const void* at) {
    Size address;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(address) : "l"(at));
    return static_cast<SharedAt>(address);
}
// Begins to copy 16 bytes to shared memory, or puts zeros there.
__device__ __forceinline__ void fetch(SharedAt to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all groups of this thread but the last `PENDING` have arrived.
template <int PENDING>
__device__ __forceinline__ void await_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
// Four 8 × 8 matrices of 16 bits: lane l says where row l % 8 of matrix l / 8 lies, and gets of each matrix row
// l / 4, columns 2 (l % 4) and the next.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], SharedAt row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}
// The same of matrices that are turned: lane l gets rows 2 (l % 4) and the next, column l / 4.
__device__ __forceinline__ void load_matrices_turned(unsigned (&out)[4], SharedAt row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
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
// How entry points take it, and hand it on.
#define AHEAD const unsigned char *ahead, Size ahead_bytes
#define THAT_AHEAD \
    Ahead { ahead, ahead_bytes }

// Lines are shared out to all threads of the grid.
__device__ __forceinline__ void ask(Ahead ahead) {
    if (!ahead.from) return;
    const Size block = static_cast<Size>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Size threads = static_cast<Size>(gridDim.y) * gridDim.x * blockDim.x;
    for (Size line = block * blockDim.x + threadIdx.x; line * LINE < ahead.bytes; line += threads)
        ask_for_line(ahead.from + line * LINE);
}

// Above this stands what needs weights alone, which no kernel writes.
__device__ __forceinline__ void begin() {
    await_previous();
    allow_next();
}

// ---- Four and eight neighbours at once -------------------------------------------------------------

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }

template <typename T>
__device__ __forceinline__ float4 widened4(unsigned first, unsigned second) {
    const T a = {static_cast<unsigned short>(first)}, b = {static_cast<unsigned short>(first >> 16)};
    const T c = {static_cast<unsigned short>(second)}, d = {static_cast<unsigned short>(second >> 16)};
    return make_float4(widened(a), widened(b), widened(c), widened(d));
}

template <typename T>
__device__ __forceinline__ float4 load4(const T* from) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    return widened4<T>(words.x, words.y);
}

// Eight of 16 bits, as they are.
template <typename T>
__device__ __forceinline__ uint4 load8(const T* from) {
    static_assert(sizeof(T) == 2, "eight fill 16 bytes");
    return *reinterpret_cast<const uint4*>(from);
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

// Eight at once: 16 bytes of 16-bit values.
struct Eight {
    float4 low, high;
};
__device__ __forceinline__ Eight widened8(const float* from) { return {load4(from), load4(from + 4)}; }
template <typename T>
__device__ __forceinline__ Eight widened8(const T* from) {
    const uint4 words = load8(from);
    return {widened4<T>(words.x, words.y), widened4<T>(words.z, words.w)};
}
__device__ __forceinline__ void store8(float* to, Eight v) { store4(to, v.low), store4(to + 4, v.high); }
template <typename T>
__device__ __forceinline__ void store8(T* to, Eight v) {
    const float4 a = v.low, b = v.high;
    *reinterpret_cast<uint4*>(to) =
        make_uint4(packed<T>(a.x, a.y), packed<T>(a.z, a.w), packed<T>(b.x, b.y), packed<T>(b.z, b.w));
}

__device__ __forceinline__ float4 plus(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
