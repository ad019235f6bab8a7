// The MLP's non-linearity, alone and behind a product. It follows common.cu in one text.

struct QuickGelu {
    __device__ __forceinline__ float operator()(float x) const { return x / (1.f + expf(-1.702f * x)); }
};
struct ErfGelu {
    __device__ __forceinline__ float operator()(float x) const { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }
};
struct TanhGelu {
    __device__ __forceinline__ float operator()(float x) const {
        const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.f + tanhf(inner));
    }
};
struct Unchanged {
    __device__ __forceinline__ float operator()(float x) const { return x; }
};

// Runs `body` with the one that is meant, so that it is looked up once and not for each value.
template <typename Body>
__device__ __forceinline__ void with_activation(int activation, Body body) {
    if (activation == 0) body(QuickGelu());
    else if (activation == 1) body(ErfGelu());
    else if (activation == 2) body(TanhGelu());
    else body(Unchanged());
}

template <typename Activation>
__device__ __forceinline__ float4 activated4(float4 v, Activation activation) {
    return make_float4(activation(v.x), activation(v.y), activation(v.z), activation(v.w));
}

// Eight neighbours a thread; `in` may be `out`; no bias where it is null.
template <typename T>
__device__ void bias_activate(const T* in, const float* bias, T* out, int width, int activation, Size n_eights,
                              Ahead ahead) {
    const Size eight = static_cast<Size>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Size at = eight * 8;
    const int channel = at % width;
    const float4 none = make_float4(0.f, 0.f, 0.f, 0.f);
    ask(ahead);
    const float4 low = bias ? load4(bias + channel) : none, high = bias ? load4(bias + channel + 4) : none;
    begin();
    if (eight >= n_eights) return;
    const Eight values = widened8(in + at);
    const float4 a = plus(values.low, low), b = plus(values.high, high);
    with_activation(activation, [&](auto chosen) { store8(out + at, {activated4(a, chosen), activated4(b, chosen)}); });
}
