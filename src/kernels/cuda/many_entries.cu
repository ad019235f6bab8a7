// The entry points for many rows, for one type of matrices or for all.

// The residual stream of so many channels.
#define FOR_CHANNELS(FOURS, CHANNELS, T, NAME)                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS) residual_norm_many_##CHANNELS##_##NAME(             \
        const float* product, const float* bias, const float* norm_weight, const float* norm_bias, float* x,         \
        float* kept, T* normed, int rows, AHEAD) {                                                                   \
        static_assert(FOURS * 128 == CHANNELS, "a lane has four of each 128");                                       \
        const Norm norm{norm_weight, norm_bias};                                                                     \
        residual_norm_many<T, FOURS>(product, bias, norm, x, kept, normed, rows, THAT_AHEAD);                        \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS) norm_many_##CHANNELS##_##NAME(                      \
        const float* x, const float* weight, const float* bias, float* plain, T* narrow, int rows) {                 \
        norm_many<T, FOURS>(x, Norm{weight, bias}, plain, narrow, rows);                                             \
    }
#define FOR_MANY_ROWS(T, NAME)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128) bias_activate_many_##NAME(                                     \
        const T* in, const float* bias, T* out, int rows, int width, int activation, AHEAD) {                        \
        bias_activate<T, 4>(in, bias, out, rows, width, activation, THAT_AHEAD);                                     \
    }                                                                                                                \
    FOR_CHANNELS(1, 128, T, NAME)                                                                                    \
    FOR_CHANNELS(2, 256, T, NAME)                                                                                    \
    FOR_CHANNELS(6, 768, T, NAME)                                                                                    \
    FOR_CHANNELS(8, 1024, T, NAME)                                                                                   \
    FOR_CHANNELS(10, 1280, T, NAME)

#if !defined(ONLY_F16) && !defined(ONLY_BF16)
FOR_MANY_ROWS(float, f32)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_BF16)
FOR_MANY_ROWS(F16, f16)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_F16)
FOR_MANY_ROWS(BF16, bf16)
#endif
