// The MLP's non-linearity, alone and behind a product. It follows common.cu in one text.

// To f32's last places.
struct Exactly {
    static __device__ __forceinline__ float quick_gelu(float x) { return x / (1.f + expf(-1.702f * x)); }
    static __device__ __forceinline__ float erf_gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }
    static __device__ __forceinline__ float tanh_gelu(float x) {
        const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.f + tanhf(inner));
    }
};
// For results of 16 bits: where there are many, the instructions of the others take longer than the values' way.
struct Shortly {
    static __device__ __forceinline__ float quick_gelu(float x) { return by_sigmoid(x, 1.702f * x); }
    // erfc by Abramowitz and Stegun 7.1.26, to 1.5e-7; nothing cancels where the result is small.
    static __device__ __forceinline__ float erf_gelu(float x) {
        const float size = fabsf(x), z = size * 0.70710678118654752f;
        const float t = quick_quotient(1.f, 1.f + 0.3275911f * z);
        float sum = 1.061405429f;
        sum = sum * t - 1.453152027f;
        sum = sum * t + 1.421413741f;
        sum = sum * t - 0.284496736f;
        sum = sum * t + 0.254829592f;
        return fmaxf(x, 0.f) - 0.5f * size * (sum * t * quick_exponential(-z * z));
    }
    static __device__ __forceinline__ float tanh_gelu(float x) {
        return by_sigmoid(x, 1.5957691216057308f * (x + 0.044715f * x * x * x));
    }
    static __device__ __forceinline__ float by_sigmoid(float x, float of) {
        return quick_quotient(x, 1.f + quick_exponential(-of));
    }
};
template <typename T>
struct Manner {
    using Of = Shortly;
};
template <>
struct Manner<float> {
    using Of = Exactly;
};

template <typename Of>
struct QuickGelu {
    __device__ __forceinline__ float operator()(float x) const { return Of::quick_gelu(x); }
};
template <typename Of>
struct ErfGelu {
    __device__ __forceinline__ float operator()(float x) const { return Of::erf_gelu(x); }
};
template <typename Of>
struct TanhGelu {
    __device__ __forceinline__ float operator()(float x) const { return Of::tanh_gelu(x); }
};
struct Unchanged {
    __device__ __forceinline__ float operator()(float x) const { return x; }
};

// Runs `body` with the one that is meant for results in T, so that it is looked up once and not for each value.
template <typename T, typename Body>
__device__ __forceinline__ void with_activation(int activation, Body body) {
    using Of = typename Manner<T>::Of;
    if (activation == 0) body(QuickGelu<Of>());
    else if (activation == 1) body(ErfGelu<Of>());
    else if (activation == 2) body(TanhGelu<Of>());
    else body(Unchanged());
}

template <typename Activation>
__device__ __forceinline__ float4 activated4(float4 v, Activation activation) {
    return make_float4(activation(v.x), activation(v.y), activation(v.z), activation(v.w));
}

// Eight neighbours of each of some rows. All rows are asked for before the first is used: no condition is around a
// load, for the compiler would wait for each before it asks for the next.
template <typename T, int ROWS>
__device__ __forceinline__ void activate_rows(const T* in, Eight bias, T* out, int width, int activation) {
    Eight values[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) values[row] = widened8(in + static_cast<Size>(row) * width);
    with_activation<T>(activation, [&](auto chosen) {
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            const float4 a = plus(values[row].low, bias.low), b = plus(values[row].high, bias.high);
            store8(out + static_cast<Size>(row) * width, {activated4(a, chosen), activated4(b, chosen)});
        }
    });
}

// Eight neighbours of up to `ROWS` rows a thread; `in` may be `out`; no bias where it is null.
template <typename T, int ROWS>
__device__ void bias_activate(const T* in, const float* bias, T* out, int rows, int width, int activation, Ahead ahead) {
    const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * 8, first = blockIdx.y * ROWS;
    const bool mine = channel < width;
    const float4 none = make_float4(0.f, 0.f, 0.f, 0.f);
    ask(ahead);
    const Eight added = bias && mine ? widened8(bias + channel) : Eight{none, none};
    begin();
    if (!mine) return;
    const Size at = static_cast<Size>(first) * width + channel;
    if (first + ROWS <= rows) {
        activate_rows<T, ROWS>(in + at, added, out + at, width, activation);
        return;
    }
#pragma unroll 1
    for (int row = 0; first + row < rows; ++row) {
        const Size more = at + static_cast<Size>(row) * width;
        activate_rows<T, 1>(in + more, added, out + more, width, activation);
    }
}
