// The kernels' entry points, for one type of matrices or for all.

// One block on a multiprocessor is enough: else the compiler saves registers by waiting between loads.
#define FOR_PLANES(THREADS, MOST_PLANES, KERNEL, T, NAME)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL##_##NAME(                                        \
        const float* product, int planes, const float* bias, const float* norm_weight, const float* norm_bias,       \
        float* x, float* kept, T* normed, int width, AHEAD) {                                                        \
        const Norm norm{norm_weight, norm_bias};                                                                     \
        residual_norm<T, MOST_PLANES>(product, planes, bias, norm, x, kept, normed, width, THAT_AHEAD);              \
    }
#define FOR_TYPE(T, NAME)                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024) embed_norm_##NAME(                                            \
        const unsigned* ids, const T* table, const float* positions, const float* weight, const float* bias,         \
        float* x, T* normed, int width, AHEAD) {                                                                     \
        embed_norm<T>(ids, table, positions, Norm{weight, bias}, x, normed, width, THAT_AHEAD);                      \
    }                                                                                                                \
    FOR_PLANES(1024, 1, residual_norm, T, NAME)                                                                      \
    FOR_PLANES(512, 8, residual_norm_planes, T, NAME)                                                                \
    extern "C" __global__ void __launch_bounds__(1024) norm_rows_##NAME(                                             \
        const float* x, const unsigned* ends, const float* weight, const float* bias, float* plain, T* narrow,       \
        int width) {                                                                                                 \
        norm_rows<T>(x, ends, Norm{weight, bias}, plain, narrow, width);                                             \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(128) bias_activate_##NAME(const T* in, const float* bias, T* out,   \
                                                                           int rows, int width, int activation,      \
                                                                           AHEAD) {                                  \
        bias_activate<T, 1>(in, bias, out, rows, width, activation, THAT_AHEAD);                                     \
    }
#define FOR_PLAIN_ATTENTION(T, NAME)                                                                                 \
    extern "C" __global__ void __launch_bounds__(32 * PLAIN_WARPS) attention_plain_##NAME(                           \
        const T* qkv, const float* bias, const float* hidden, T* mixed, AHEAD) {                                     \
        attention_plain<T>(qkv, bias, hidden, mixed, THAT_AHEAD);                                                    \
    }

// One type is compiled at a time: ONLY_F32, ONLY_F16 or ONLY_BF16; all of them where none is named. Types of 16
// bits have one of the two attention kernels.
#if !defined(ONLY_F16) && !defined(ONLY_BF16)
FOR_TYPE(float, f32)
FOR_PLAIN_ATTENTION(float, f32)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_BF16)
FOR_TYPE(F16, f16)
#ifndef TENSOR_CORES
FOR_PLAIN_ATTENTION(F16, f16)
#endif
#endif
#if !defined(ONLY_F32) && !defined(ONLY_F16)
FOR_TYPE(BF16, bf16)
#ifndef TENSOR_CORES
FOR_PLAIN_ATTENTION(BF16, bf16)
#endif
#endif

#ifdef TENSOR_CORES
#define FOR_TENSOR_CORES(T, NAME)                                                                                    \
    extern "C" __global__ void __launch_bounds__(32 * TENSOR_WARPS) attention_tensor_##NAME(                         \
        const T* qkv, const float* bias, const float* hidden, T* mixed, AHEAD) {                                     \
        attention_tensor<T>(qkv, bias, hidden, mixed, THAT_AHEAD);                                                   \
    }
#if !defined(ONLY_F32) && !defined(ONLY_BF16)
FOR_TENSOR_CORES(F16, f16)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_F16)
FOR_TENSOR_CORES(BF16, bf16)
#endif
#endif
