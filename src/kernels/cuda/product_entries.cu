// The entry points of our own products, for one type of matrices or for both.

#ifdef TENSOR_CORES
#define FOR_COLUMNS(COLUMNS, T, NAME)                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * PRODUCT_WARPS) product_##COLUMNS##_##NAME(                     \
        const T* x, const T* weight, const float* bias, T* narrow, float* planes, int rows, int depth, int outputs,  \
        int activation, AHEAD) {                                                                                     \
        const Finish<T> to{bias, narrow, planes, activation};                                                        \
        few_rows<T, COLUMNS>(x, weight, to, rows, depth, outputs, THAT_AHEAD);                                       \
    }
#if !defined(ONLY_F32) && !defined(ONLY_BF16)
FOR_COLUMNS(32, F16, f16)
FOR_COLUMNS(64, F16, f16)
#endif
#if !defined(ONLY_F32) && !defined(ONLY_F16)
FOR_COLUMNS(32, BF16, bf16)
FOR_COLUMNS(64, BF16, bf16)
#endif
#endif
