// Matrix products on host memory.
#pragma once
#include "card.h"

namespace card {

// cudaDataType_t, as far as it occurs.
enum Type : int { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };

size_t bytes_of(Type type);

// D = alpha · op(A) · op(B), column-major; m × n with k terms in each sum, cut into `parts` as an algorithm
// with split sums does.
struct Multiplication {
    int64_t m, n, k;
    bool transpose_a, transpose_b;
    Address a, b, d;
    Type type_a, type_b, type_d;
    int64_t lda, ldb, ldd;
    double alpha;
    int parts;
};

void multiply(const Multiplication& what);

// Bytes of a column-major matrix from its first value to its last.
inline size_t extent(int64_t rows, int64_t columns, int64_t stride, Type type) {
    return rows && columns ? (size_t(columns - 1) * stride + rows) * bytes_of(type) : 0;
}

}  // namespace card
