// Numbers of 16 bits, rounded to nearest even, by tables.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace card {

struct Half {
    uint16_t bits;
};
struct Brain {
    uint16_t bits;
};

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

inline double wide(Half value) {
    static const std::vector<float> table = [] {
        std::vector<float> all(65536);
        for (uint32_t bits = 0; bits < 65536; ++bits) {
            const int exponent = bits >> 10 & 31, fraction = bits & 1023;
            const float sign = bits >> 15 ? -1.f : 1.f;
            all[bits] = exponent == 31  ? (fraction ? NAN : sign * INFINITY)
                        : exponent == 0 ? sign * std::ldexp(float(fraction), -24)
                                        : sign * std::ldexp(float(1024 + fraction), exponent - 25);
        }
        return all;
    }();
    return table[value.bits];
}
inline double wide(Brain value) { return from_bits(uint32_t(value.bits) << 16); }

inline Half narrow(double value, Half) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (std::isnan(value)) return {0x7fff};
    if (size >= 65520) return {uint16_t(sign | 0x7c00)};
    if (size < std::ldexp(1.0, -14)) return {uint16_t(sign | uint16_t(std::nearbyint(std::ldexp(size, 24))))};
    int exponent;
    const double fraction = std::frexp(size, &exponent);
    return {uint16_t(sign | (uint32_t((exponent + 13) << 10) + uint32_t(std::nearbyint(std::ldexp(fraction, 11)))))};
}
inline Brain narrow(double value, Brain) {
    // From a double at once: through f32 a value could be rounded twice.
    if (std::isnan(value)) return {0x7fff};
    uint32_t bits = bits_of(float(value));
    const double back = from_bits(bits);
    if (back != value && !std::isinf(back)) bits = (std::fabs(back) > std::fabs(value) ? bits - 1 : bits) | 1;
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace card
