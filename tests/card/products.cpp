// Sums of products: both factors widened and laid out row by row, then plain loops that the compiler
// makes vectors of.
#include "products.h"

#include "numbers.h"

namespace card {

namespace {

double value_at(Address at, Type type, size_t index) {
    switch (type) {
        case R_32F: return host<float>(at)[index];
        case R_64F: return host<double>(at)[index];
        case R_16F: return wide(host<Half>(at)[index]);
        case R_16BF: return wide(host<Brain>(at)[index]);
    }
    fail("type %d of a matrix", int(type));
}

void set(Address at, Type type, size_t index, double value) {
    switch (type) {
        case R_32F: host<float>(at)[index] = float(value); return;
        case R_64F: host<double>(at)[index] = value; return;
        case R_16F: host<Half>(at)[index] = narrow(value, Half()); return;
        case R_16BF: host<Brain>(at)[index] = narrow(value, Brain()); return;
    }
    fail("type %d of a matrix", int(type));
}

// Rows of k values; `along` says that a row lies together.
template <typename Value>
std::vector<Value> rows(Address at, Type type, int64_t n_rows, int64_t k, int64_t stride, bool along) {
    std::vector<Value> all(size_t(n_rows) * k);
    for (int64_t row = 0; row < n_rows; ++row)
        for (int64_t index = 0; index < k; ++index)
            all[row * k + index] = Value(value_at(at, type, along ? row * stride + index : index * stride + row));
    return all;
}

constexpr int LANES = 16;

template <typename Value>
Value dot(const Value* a, const Value* b, int64_t n) {
    Value sums[LANES] = {};
    int64_t index = 0;
    for (; index + LANES <= n; index += LANES)
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += a[index + lane] * b[index + lane];
    for (; index < n; ++index) sums[0] += a[index] * b[index];
    Value all = 0;
    for (const Value sum : sums) all += sum;
    return all;
}

template <typename Value>
void run(const Multiplication& what) {
    const auto a = rows<Value>(what.a, what.type_a, what.m, what.k, what.lda, what.transpose_a);
    const auto b = rows<Value>(what.b, what.type_b, what.n, what.k, what.ldb, !what.transpose_b);
    const int64_t part = (what.k + what.parts - 1) / what.parts;
    for (int64_t column = 0; column < what.n; ++column)
        for (int64_t row = 0; row < what.m; ++row) {
            Value sum = 0;
            for (int64_t from = 0; from < what.k; from += part)
                sum += dot(&a[row * what.k + from], &b[column * what.k + from], std::min(part, what.k - from));
            set(what.d, what.type_d, column * what.ldd + row, what.alpha * sum);
        }
}

}  // namespace

size_t bytes_of(Type type) {
    switch (type) {
        case R_32F: return 4;
        case R_64F: return 8;
        case R_16F:
        case R_16BF: return 2;
    }
    fail("type %d of a matrix", int(type));
}

void multiply(const Multiplication& what) {
    if (what.type_a == R_64F) run<double>(what);
    else run<float>(what);
}

}  // namespace card
