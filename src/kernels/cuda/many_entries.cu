// The entry points for many rows, for one type of matrices or for all.

#define FOR_MANY_ROWS(T, NAME)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128) bias_activate_many_##NAME(                                     \
        const T* in, const float* bias, T* out, int rows, int width, int activation, AHEAD) {                        \
        bias_activate<T, 4>(in, bias, out, rows, width, activation, THAT_AHEAD);                                     \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 3) residual_norm_many_##NAME(                       \
        const float* product, const float* bias, const float* norm_weight, const float* norm_bias, float* x,         \
        float* kept, T* normed, int rows, int width, AHEAD) {                                                        \
        const Norm norm{norm_weight, norm_bias};                                                                     \
        residual_norm_many<T>(product, bias, norm, x, kept, normed, rows, width, THAT_AHEAD);                        \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 5) norm_many_##NAME(                                \
        const float* x, const float* weight, const float* bias, float* plain, T* narrow, int rows, int width) {      \
        norm_many<T>(x, Norm{weight, bias}, plain, narrow, rows, width);                                             \
    }

#if !defined(ONLY_F16) && !defined(ONLY_BF16)
FOR_MANY_ROWS(float, f32)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_BF16)
FOR_MANY_ROWS(F16, f16)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_F16)
FOR_MANY_ROWS(BF16, bf16)
#endif
