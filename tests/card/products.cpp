// Sums of products: both factors widened and laid out in blocks, then plain loops that the compiler makes
// vectors of.
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

constexpr int64_t ROWS = 4, COLUMNS = 32;  // of the part of the result that stays in registers

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A factor in blocks of `wide` rows, the values of a block for one term beside each other, zeros behind the
// last row; `along` says that a row lies together in memory.
template <typename Value>
std::vector<Value> packed(Address at, Type type, int64_t n_rows, int64_t k, int64_t stride, bool along, int64_t wide) {
    std::vector<Value> all(size_t(rounded_up(n_rows, wide)) * k);
    for (int64_t row = 0; row < n_rows; ++row)
        for (int64_t index = 0; index < k; ++index)
            all[(row / wide * k + index) * wide + row % wide] =
                Value(value_at(at, type, along ? row * stride + index : index * stride + row));
    return all;
}

template <typename Value>
void block(const Value* a, const Value* b, int64_t from, int64_t to, Value (&sums)[ROWS][COLUMNS]) {
    Value part[ROWS][COLUMNS] = {};
    for (int64_t index = from; index < to; ++index)
        for (int64_t row = 0; row < ROWS; ++row)
            for (int64_t column = 0; column < COLUMNS; ++column)
                part[row][column] += a[index * ROWS + row] * b[index * COLUMNS + column];
    for (int64_t row = 0; row < ROWS; ++row)
        for (int64_t column = 0; column < COLUMNS; ++column) sums[row][column] += part[row][column];
}

// `left` are the columns of the result, `right` its rows: there the values lie beside each other.
template <typename Value>
void run(const Multiplication& what) {
    const auto right = packed<Value>(what.a, what.type_a, what.m, what.k, what.lda, what.transpose_a, COLUMNS);
    const auto left = packed<Value>(what.b, what.type_b, what.n, what.k, what.ldb, !what.transpose_b, ROWS);
    const int64_t part = rounded_up(what.k, what.parts) / what.parts;
    for (int64_t n = 0; n < what.n; n += ROWS)
        for (int64_t m = 0; m < what.m; m += COLUMNS) {
            Value sums[ROWS][COLUMNS] = {};
            for (int64_t from = 0; from < what.k; from += part)
                block(&left[n * what.k], &right[m * what.k], from, std::min(what.k, from + part), sums);
            for (int64_t row = 0; row < std::min(ROWS, what.n - n); ++row)
                for (int64_t column = 0; column < std::min(COLUMNS, what.m - m); ++column)
                    set(what.d, what.type_d, (n + row) * what.ldd + m + column, what.alpha * sums[row][column]);
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
