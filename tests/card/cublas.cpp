// The two products of cuBLAS that candle starts, and the handles that it opens on the way.
#include "products.h"
#include "streams.h"

using namespace card;

namespace {

struct Handle {
    CUstream stream = nullptr;
};

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

constexpr int COMPUTE_32F = 68;

CUresult start(CUstream stream, Multiplication what, long long step_a, long long step_b, long long step_d, int batch) {
    const auto of = [=](int index) {
        Multiplication one = what;
        one.a += index * step_a * bytes_of(what.type_a);
        one.b += index * step_b * bytes_of(what.type_b);
        one.d += index * step_d * bytes_of(what.type_d);
        return one;
    };
    const auto touches = [=] {
        std::vector<Access> all;
        for (int index = 0; index < batch; ++index) {
            const Multiplication one = of(index);
            const auto bytes = [&](bool transposed, int64_t rows, int64_t columns, int64_t stride, Type type) {
                return transposed ? extent(columns, rows, stride, type) : extent(rows, columns, stride, type);
            };
            all.push_back({"the left factor", one.a, bytes(one.transpose_a, one.m, one.k, one.lda, one.type_a), false});
            all.push_back({"the right factor", one.b, bytes(one.transpose_b, one.k, one.n, one.ldb, one.type_b), false});
            all.push_back({"the product", one.d, extent(one.m, one.n, one.ldd, one.type_d), true});
        }
        return all;
    };
    const auto run = [=] {
        counts().products++;
        for (int index = 0; index < batch; ++index) multiply(of(index));
    };
    return put(stream, {"cublasGemmStridedBatched", touches, run, 0.01});
}

}  // namespace

extern "C" {

int cublasCreate_v2(Handle** handle) { return *handle = new Handle, SUCCESS; }
int cublasDestroy_v2(Handle* handle) { return delete handle, SUCCESS; }
int cublasSetStream_v2(Handle* handle, CUstream stream) { return handle->stream = stream, SUCCESS; }

int cublasGemmStridedBatchedEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a,
                               int lda, long long step_a, const void* b, int type_b, int ldb, long long step_b, const void* beta,
                               void* c, int type_c, int ldc, long long step_c, int batch, int compute, int) {
    CARD_CALL;
    if (compute != COMPUTE_32F) fail("cublasGemmStridedBatchedEx computes in type %d", compute);
    if (*static_cast<const float*>(beta) != 0) fail("cublasGemmStridedBatchedEx with a beta");
    if (lda < std::max(1, op_a ? k : m) || ldb < std::max(1, op_b ? n : k) || ldc < std::max(1, m)) return INVALID_VALUE;
    const Multiplication what{m, n, k, op_a == 1, op_b == 1, Address(a), Address(b), Address(c), Type(type_a), Type(type_b),
                              Type(type_c), lda, ldb, ldc, *static_cast<const float*>(alpha), 1};
    return start(handle->stream, what, step_a, step_b, step_c, batch) ? NOT_SUPPORTED : SUCCESS;
}

int cublasDgemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n, int k, const double* alpha, const double* a, int lda,
                              long long step_a, const double* b, int ldb, long long step_b, const double* beta, double* c, int ldc,
                              long long step_c, int batch) {
    CARD_CALL;
    if (*beta != 0) fail("cublasDgemmStridedBatched with a beta");
    if (lda < std::max(1, op_a ? k : m) || ldb < std::max(1, op_b ? n : k) || ldc < std::max(1, m)) return INVALID_VALUE;
    const Multiplication what{m, n, k, op_a == 1, op_b == 1, Address(a), Address(b), Address(c), R_64F, R_64F, R_64F, lda, ldb, ldc,
                              *alpha, 1};
    return start(handle->stream, what, step_a, step_b, step_c, batch) ? NOT_SUPPORTED : SUCCESS;
}

// candle opens a generator that nothing here draws from.
int curandCreateGenerator(void** generator, int) { return *generator = new int, 0; }
int curandDestroyGenerator(void* generator) { return delete static_cast<int*>(generator), 0; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
int curandSetStream(void*, CUstream) { return 0; }
}
