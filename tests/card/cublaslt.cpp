// cuBLASLt: descriptions, a heuristic that proposes a few algorithms, and the product, with what the
// library's documentation says about each checked.
#include <cstdlib>
#include <cstring>

#include "products.h"
#include "streams.h"

using namespace card;

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

constexpr int COMPUTE_32F = 68;
constexpr int TRANSA = 3, TRANSB = 4, EPILOGUE = 7, BIAS_POINTER = 8;  // attributes of a product
constexpr uint32_t DEFAULT = 1, BIAS = 4;       // epilogues
constexpr int MAX_WORKSPACE = 1, SCHEMES = 3;   // attributes of a preference
constexpr size_t ALIGNMENT = 256;               // of every matrix, unless a preference says otherwise
constexpr uint64_t MARK = 0xca4d0000;

struct Description {
    int compute, scale;
    int transpose[2] = {0, 0};
    uint32_t epilogue = DEFAULT;
    uint64_t bias = 0;
};
struct Layout {
    Type type;
    uint64_t rows, columns;
    int64_t stride;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t schemes = ~0u;
};
struct Algorithm {
    uint64_t data[8];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// What the fake library knows to do: sums in so many parts, at some price.
struct Way {
    int parts;
    size_t workspace;
    double milliseconds;
    bool starts;      // the heuristic of the real one errs, too
    uint32_t scheme;  // how the parts are added: bits of cublasLtReductionScheme_t
};
constexpr Way WAYS[] = {
    {1, 0, 0.030, true, 0},          {1, 0, 0.001, false, 0},       {4, 8 << 20, 0.010, true, 2},
    {2, 32 << 20, 0.020, true, 2},   {3, 1 << 20, 0.005, true, 4},  {2, 64 << 20, 0.001, true, 2},
};

// An algorithm belongs to shapes and types.
uint64_t key(const Description& description, const Layout& a, const Layout& b, const Layout& d) {
    uint64_t hash = description.transpose[0] + 2 * description.transpose[1] + 4 * description.epilogue;
    for (const Layout* one : {&a, &b, &d})
        for (uint64_t value : {uint64_t(one->type), one->rows, one->columns, uint64_t(one->stride)}) hash = hash * 1000003 + value;
    return hash;
}

const Way* way_of(const Algorithm& algorithm, uint64_t wanted) {
    const uint64_t index = algorithm.data[0] - MARK;
    if (index >= sizeof WAYS / sizeof *WAYS || algorithm.data[1] != wanted) return nullptr;
    return &WAYS[index];
}

Multiplication described(const Description& description, const Layout& a, const Layout& b, const Layout& d) {
    const bool ta = description.transpose[0] == 1, tb = description.transpose[1] == 1;
    const uint64_t m = ta ? a.columns : a.rows, k = ta ? a.rows : a.columns;
    const uint64_t k_of_b = tb ? b.columns : b.rows, n = tb ? b.rows : b.columns;
    if (k != k_of_b || m != d.rows || n != d.columns) fail("a product of matrices that do not fit each other");
    return {int64_t(m), int64_t(n), int64_t(k), ta, tb, 0, 0, 0, a.type, b.type, d.type, a.stride, b.stride, d.stride, 1, 1};
}

bool supported(const Description& description, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    if (description.compute != COMPUTE_32F || description.scale != R_32F) return false;
    if (description.epilogue != DEFAULT && (description.epilogue != BIAS || std::getenv("CARD_NO_EPILOGUE"))) return false;
    if (c.type != d.type || c.rows != d.rows || c.columns != d.columns || c.stride != d.stride) return false;
    for (const Layout* one : {&a, &b, &d})
        if (one->rows == 0 || one->columns == 0 || one->stride < int64_t(one->rows)) return false;
    return a.type == b.type && (d.type == R_32F || d.type == a.type);
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion() { return 130100; }
int cublasLtCreate(void** handle) { return *handle = new int, SUCCESS; }
int cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), SUCCESS; }

int cublasLtMatmulDescCreate(Description** description, int compute, int scale) {
    return *description = new Description{compute, scale}, SUCCESS;
}
int cublasLtMatmulDescDestroy(Description* description) { return delete description, SUCCESS; }
int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t bytes) {
    if (attribute == EPILOGUE && bytes == 4) return std::memcpy(&description->epilogue, value, bytes), SUCCESS;
    if (attribute == BIAS_POINTER && bytes == 8) return std::memcpy(&description->bias, value, bytes), SUCCESS;
    if (attribute != TRANSA && attribute != TRANSB) fail("attribute %d of a product", attribute);
    if (bytes != sizeof(int32_t)) return INVALID_VALUE;
    std::memcpy(&description->transpose[attribute - TRANSA], value, bytes);
    return SUCCESS;
}

int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    return *layout = new Layout{Type(type), rows, columns, stride}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { return delete layout, SUCCESS; }

int cublasLtMatmulPreferenceCreate(Preference** preference) { return *preference = new Preference, SUCCESS; }
int cublasLtMatmulPreferenceDestroy(Preference* preference) { return delete preference, SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t bytes) {
    if (attribute == MAX_WORKSPACE && bytes == 8) return std::memcpy(&preference->workspace, value, bytes), SUCCESS;
    if (attribute == SCHEMES && bytes == 4) return std::memcpy(&preference->schemes, value, bytes), SUCCESS;
    fail("attribute %d of a preference, in %zu bytes", attribute, bytes);
}

int cublasLtMatmulAlgoGetHeuristic(void*, const Description* description, const Layout* a, const Layout* b, const Layout* c,
                                   const Layout* d, const Preference* preference, int room, Found* found, int* count) {
    *count = 0;
    if (room < 1) return INVALID_VALUE;
    if (!supported(*description, *a, *b, *c, *d)) return NOT_SUPPORTED;
    (void)described(*description, *a, *b, *d);
    for (const Way& way : WAYS) {
        if (*count == room || way.workspace > preference->workspace || (way.scheme & ~preference->schemes)) continue;
        Found one{};
        one.algorithm.data[0] = MARK + uint64_t(&way - WAYS), one.algorithm.data[1] = key(*description, *a, *b, *d);
        one.workspace = way.workspace, one.waves = 1;
        found[(*count)++] = one;
    }
    if (*count < room) {  // one that is there and of no use
        found[*count] = {};
        found[(*count)++].state = NOT_SUPPORTED;
    }
    return SUCCESS;
}

int cublasLtMatmulAlgoCheck(void*, const Description* description, const Layout* a, const Layout* b, const Layout* c, const Layout* d,
                            const Algorithm* algorithm, Found* found) {
    const Way* way = way_of(*algorithm, key(*description, *a, *b, *d));
    if (!way || !supported(*description, *a, *b, *c, *d)) return INVALID_VALUE;
    *found = {};
    found->algorithm = *algorithm, found->workspace = way->workspace;
    return SUCCESS;
}

int cublasLtMatmul(void*, const Description* description, const float* alpha, const void* a, const Layout* layout_a, const void* b,
                   const Layout* layout_b, const float* beta, const void* c, const Layout* layout_c, void* d, const Layout* layout_d,
                   const Algorithm* algorithm, void* workspace, size_t room, CUstream stream) {
    CARD_CALL;
    if (!supported(*description, *layout_a, *layout_b, *layout_c, *layout_d)) return NOT_SUPPORTED;
    const bool adds = description->epilogue == BIAS;
    if (*beta != (adds ? 1 : 0) || c != d) fail("cublasLtMatmul adds to its result, or the bias alone");
    if (adds && (layout_d->type != R_32F || layout_d->stride != int64_t(layout_d->rows) || description->bias % 16))
        fail("a bias of another type, or not aligned as the heuristic was told");
    const Way* way = way_of(*algorithm, key(*description, *layout_a, *layout_b, *layout_d));
    if (!way) return INVALID_VALUE;
    // What the heuristic proposes is no promise.
    if (!way->starts || (way == &WAYS[0] && std::getenv("CARD_FIRST_REFUSED"))) return NOT_SUPPORTED;
    if (way->workspace > room) fail("an algorithm needs %zu bytes of scratch memory and is given %zu", way->workspace, room);
    Multiplication what = described(*description, *layout_a, *layout_b, *layout_d);
    what.a = Address(a), what.b = Address(b), what.d = Address(d), what.alpha = *alpha, what.parts = way->parts;
    const size_t bytes_a = extent(layout_a->rows, layout_a->columns, layout_a->stride, what.type_a);
    const size_t bytes_b = extent(layout_b->rows, layout_b->columns, layout_b->stride, what.type_b);
    const size_t bytes_d = extent(layout_d->rows, layout_d->columns, layout_d->stride, what.type_d);
    const Address scratch = Address(workspace);
    const size_t scratch_bytes = way->workspace;
    const Address bias = adds ? description->bias : 0;
    const size_t rows = layout_d->rows, columns = layout_d->columns;
    const auto touches = [=] {
        std::vector<Access> all{{"the left factor", what.a, bytes_a, false, ALIGNMENT},
                                   {"the right factor", what.b, bytes_b, false, ALIGNMENT},
                                   {"the product", what.d, bytes_d, true, ALIGNMENT},
                                   {"the scratch memory", scratch, scratch_bytes, true, ALIGNMENT}};
        if (adds) all.push_back({"what is added to", what.d, bytes_d, false, ALIGNMENT});
        if (adds) all.push_back({"the bias", bias, rows * sizeof(float), false, 16});
        return all;
    };
    const auto run = [=] {
        counts().products++;
        float* to = adds ? host<float>(what.d) : nullptr;
        const std::vector<float> before(to, to + (adds ? rows * columns : 0));
        multiply(what);
        for (size_t index = 0; index < before.size(); ++index) to[index] += before[index] + host<float>(bias)[index % rows];
    };
    // In half the time, so that it is chosen.
    return put(stream, {"cublasLtMatmul", touches, run, way->milliseconds * (adds ? 0.5 : 1)}) ? NOT_SUPPORTED : SUCCESS;
}
}
