// Our own kernels: their parameters, what each may touch, and the kernel itself, run thread by
// thread by the emulator.
#include "../kernels/emulator.h"

#include "products.h"

namespace card {

namespace {

constexpr size_t P = 8, I = 4;  // a pointer, an int

template <typename T>
constexpr size_t VECTOR = 4 * sizeof(T);  // four neighbours are loaded at once
constexpr size_t QUAD = 16;

using Accesses = std::vector<Access>;

void optional(Accesses& all, const Access& access) {
    if (access.at) all.push_back(access);
}

Accesses norm_touches(const Call& call, size_t first, int width) {
    return {{"the norm's scale", call.pointer(first), width * sizeof(float), false, QUAD},
            {"the norm's shift", call.pointer(first + 1), width * sizeof(float), false, QUAD}};
}

Norm norm_of(const Call& call, size_t first) { return {host<float>(call.pointer(first)), host<float>(call.pointer(first + 1))}; }

void check_row_threads(const Call& call, int width) {
    if (call.block.x % 32 || int(call.block.x) * 4 < width || call.grid.y != 1) fail("%u threads for rows of %d", call.block.x, width);
}

// What a kernel asks for ahead: a place and bytes among its parameters, all of one live allocation.
Ahead ahead_of(const Call& call, size_t first) {
    const Address from = call.pointer(first);
    const Size bytes = call.get<Size>(first + 1);
    if ((from == 0) != (bytes == 0)) fail("%llu bytes are asked for ahead at %p", bytes, host<void>(from));
    if (from && (!is_device(from) || !is_device(from + bytes - 1))) fail("what is asked for ahead is no memory of the card");
    return {host<unsigned char>(from), bytes};
}

void launch(const Call& call, std::function<void()> body) {
    emulator::launch(int(call.grid.x), int(call.grid.y), int(call.block.x), std::move(body));
}

template <typename T>
Kernel embed() {
    const auto touches = [](const Call& call) {
        const int width = call.get<int>(7);
        check_row_threads(call, width);
        const size_t rows = call.grid.x, bytes = rows * width;
        Accesses all = norm_touches(call, 3, width);
        all.push_back({"the ids", call.pointer(0), rows * sizeof(unsigned), false, sizeof(unsigned)});
        all.push_back({"the positions", call.pointer(2), size_t(WINDOW) * width * sizeof(float), false, QUAD});
        all.push_back({"x", call.pointer(5), bytes * sizeof(float), true, QUAD});
        all.push_back({"the norm", call.pointer(6), bytes * sizeof(T), true, VECTOR<T>});
        return all;
    };
    const auto run = [](const Call& call) {
        const auto* ids = host<unsigned>(call.pointer(0));
        const int width = call.get<int>(7);
        for (unsigned row = 0; row < call.grid.x; ++row)
            if (ids[row] != KEPT_ROW && !is_device(call.pointer(1) + size_t(ids[row] + 1) * width * sizeof(T) - 1))
                fail("id %u of row %u is beyond the table", ids[row], row);
        launch(call, [&] {
            embed_norm<T>(ids, host<T>(call.pointer(1)), host<float>(call.pointer(2)), norm_of(call, 3), host<float>(call.pointer(5)),
                          host<T>(call.pointer(6)), width, ahead_of(call, 8));
        });
    };
    return {{P, P, P, P, P, P, P, I, P, P}, 1024, touches, run};
}

constexpr unsigned EMULATED_ROWS = 80;  // up to which rows are run thread by thread
constexpr unsigned MANY_EMULATED_ROWS = 800;  // the same of a warp each

// residual_norm by plain loops: what the threads do, fewer rows show. The bias is parameter `first`, and what comes
// behind it the next ones.
template <typename T>
void residual_by_loops(const Call& call, size_t first, size_t rows, int planes, int width) {
    const auto *product = host<float>(call.pointer(0)), *bias = host<float>(call.pointer(first));
    const Norm norm = norm_of(call, first + 1);
    float *x = host<float>(call.pointer(first + 3)), *kept = host<float>(call.pointer(first + 4));
    T* normed = host<T>(call.pointer(first + 5));
    for (size_t row = 0; row < rows; ++row) {
        double sum = 0, squares = 0;
        for (int channel = 0; channel < width; ++channel) {
            const size_t at = row * width + channel;
            float value = product[at];
            for (int plane = 1; plane < planes; ++plane) value += product[size_t(plane) * rows * width + at];
            x[at] += value + bias[channel];
            if (kept) kept[at] = x[at];
            sum += x[at];
        }
        for (int channel = 0; channel < width; ++channel) squares += std::pow(x[row * width + channel] - sum / width, 2);
        const double scale = 1 / std::sqrt(squares / width + EPSILON);
        for (int channel = 0; normed && channel < width; ++channel) {
            const size_t at = row * width + channel;
            normed[at] = narrowed(float((x[at] - sum / width) * scale * norm.weight[channel] + norm.bias[channel]), T());
        }
    }
}

void check_row_warps(const Call& call, int rows) {
    if (call.block.x != 32 * ROW_WARPS || int(call.grid.x) != (rows + ROW_WARPS - 1) / ROW_WARPS || call.grid.y != 1)
        fail("%u blocks of %u threads for %d rows", call.grid.x, call.block.x, rows);
}

// What both forms touch; `first` as above.
template <typename T>
Accesses residual_touches(const Call& call, size_t first, size_t rows, int planes, int width) {
    const size_t values = rows * width;
    Accesses all{{"the product", call.pointer(0), planes * values * sizeof(float), false, QUAD},
                 {"the bias", call.pointer(first), width * sizeof(float), false, QUAD},
                 {"x, read", call.pointer(first + 3), values * sizeof(float), false, QUAD},
                 {"x, written", call.pointer(first + 3), values * sizeof(float), true, QUAD}};
    optional(all, {"the copy", call.pointer(first + 4), values * sizeof(float), true, QUAD});
    optional(all, {"the norm", call.pointer(first + 5), values * sizeof(T), true, VECTOR<T>});
    if (call.pointer(first + 5))
        for (const Access& one : norm_touches(call, first + 1, width)) all.push_back(one);
    return all;
}

template <typename T, int MOST_PLANES>
Kernel residual() {
    const auto touches = [](const Call& call) {
        const int width = call.get<int>(8), planes = call.get<int>(1);
        check_row_threads(call, width);
        if (planes < 1 || planes > MOST_PLANES) fail("a product of %d planes", planes);
        return residual_touches<T>(call, 2, call.grid.x, planes, width);
    };
    const auto run = [](const Call& call) {
        const Ahead ahead = ahead_of(call, 9);
        if (call.grid.x > EMULATED_ROWS) return residual_by_loops<T>(call, 2, call.grid.x, call.get<int>(1), call.get<int>(8));
        launch(call, [&] {
            residual_norm<T, MOST_PLANES>(host<float>(call.pointer(0)), call.get<int>(1), host<float>(call.pointer(2)),
                                          norm_of(call, 3), host<float>(call.pointer(5)), host<float>(call.pointer(6)),
                                          host<T>(call.pointer(7)), call.get<int>(8), ahead);
        });
    };
    return {{P, I, P, P, P, P, P, P, I, P, P}, MOST_PLANES == 1 ? 1024 : 512, touches, run};
}

// Parameters: product, bias, the norm's two, x, kept, normed; rows; what is asked for ahead.
template <typename T, int FOURS>
Kernel residual_many() {
    const auto touches = [](const Call& call) {
        const int rows = call.get<int>(7);
        check_row_warps(call, rows);
        return residual_touches<T>(call, 1, rows, 1, FOURS * 128);
    };
    const auto run = [](const Call& call) {
        const int rows = call.get<int>(7);
        const Ahead ahead = ahead_of(call, 8);
        if (rows > int(MANY_EMULATED_ROWS)) return residual_by_loops<T>(call, 1, rows, 1, FOURS * 128);
        launch(call, [&] {
            residual_norm_many<T, FOURS>(host<float>(call.pointer(0)), host<float>(call.pointer(1)), norm_of(call, 2),
                                         host<float>(call.pointer(4)), host<float>(call.pointer(5)), host<T>(call.pointer(6)), rows,
                                         ahead);
        });
    };
    return {{P, P, P, P, P, P, P, I, P, P}, 32 * ROW_WARPS, touches, run};
}

// Parameters: x, the norm's two, in f32, narrow; rows.
template <typename T, int FOURS>
Kernel norms_many() {
    const auto touches = [](const Call& call) {
        const int rows = call.get<int>(5), width = FOURS * 128;
        check_row_warps(call, rows);
        const size_t values = size_t(rows) * width;
        Accesses all = norm_touches(call, 1, width);
        all.push_back({"x", call.pointer(0), values * sizeof(float), false, QUAD});
        optional(all, {"the norm in f32", call.pointer(3), values * sizeof(float), true, QUAD});
        optional(all, {"the norm", call.pointer(4), values * sizeof(T), true, VECTOR<T>});
        return all;
    };
    const auto run = [](const Call& call) {
        launch(call, [&] {
            norm_many<T, FOURS>(host<float>(call.pointer(0)), norm_of(call, 1), host<float>(call.pointer(3)),
                                host<T>(call.pointer(4)), call.get<int>(5));
        });
    };
    return {{P, P, P, P, P, I}, 32 * ROW_WARPS, touches, run};
}

template <typename T>
Kernel norms() {
    const auto touches = [](const Call& call) {
        const int width = call.get<int>(6);
        check_row_threads(call, width);
        const size_t rows = call.grid.x, row_bytes = width * sizeof(float);
        Accesses all = norm_touches(call, 2, width);
        const Address x = call.pointer(0), ends = call.pointer(1);
        if (!ends) all.push_back({"x", x, rows * row_bytes, false, QUAD});
        optional(all, {"the ends", ends, rows * sizeof(unsigned), false, sizeof(unsigned)});
        for (size_t row = 0; ends && row < rows; ++row)
            all.push_back({"an end's row", x + (row * WINDOW + host<unsigned>(ends)[row]) * row_bytes, row_bytes, false, QUAD});
        optional(all, {"the norm in f32", call.pointer(4), rows * row_bytes, true, QUAD});
        optional(all, {"the norm", call.pointer(5), rows * width * sizeof(T), true, VECTOR<T>});
        return all;
    };
    const auto run = [](const Call& call) {
        launch(call, [&] {
            norm_rows<T>(host<float>(call.pointer(0)), host<unsigned>(call.pointer(1)), norm_of(call, 2), host<float>(call.pointer(4)),
                         host<T>(call.pointer(5)), call.get<int>(6));
        });
    };
    return {{P, P, P, P, P, P, I}, 1024, touches, run};
}

template <typename T, int ROWS>
Kernel activation() {
    const auto touches = [](const Call& call) {
        const int rows = call.get<int>(3), width = call.get<int>(4);
        const size_t values = size_t(rows) * width;
        if (width % 8 || int(call.grid.y) != (rows + ROWS - 1) / ROWS || Size(call.grid.x) * call.block.x * 8 < Size(width))
            fail("%u × %u blocks for %d rows of %d", call.grid.x, call.grid.y, rows, width);
        if (call.get<int>(5) < 0 || call.get<int>(5) > 2) fail("activation %d", call.get<int>(5));
        Accesses all{{"what goes in", call.pointer(0), values * sizeof(T), false, VECTOR<T>},
                     {"what comes out", call.pointer(2), values * sizeof(T), true, VECTOR<T>}};
        optional(all, {"the bias", call.pointer(1), width * sizeof(float), false, QUAD});
        return all;
    };
    const auto run = [](const Call& call) {
        launch(call, [&] {
            bias_activate<T, ROWS>(host<T>(call.pointer(0)), host<float>(call.pointer(1)), host<T>(call.pointer(2)),
                                   call.get<int>(3), call.get<int>(4), call.get<int>(5), ahead_of(call, 6));
        });
    };
    return {{P, P, P, I, I, I, P, P}, 128, touches, run};
}

template <typename T>
Kernel attention(bool tensor) {
    const unsigned threads = 32 * (tensor ? TENSOR_WARPS : PLAIN_WARPS);
    const auto touches = [threads](const Call& call) {
        if (call.block.x != threads) fail("attention with %u threads", call.block.x);
        const size_t width = size_t(call.grid.x) * HEAD, rows = size_t(call.grid.y) * WINDOW;
        Accesses all{{"query, key and value", call.pointer(0), rows * 3 * width * sizeof(T), false, QUAD},
                     {"the mixed values", call.pointer(3), rows * width * sizeof(T), true, 4}};
        optional(all, {"the bias", call.pointer(1), 3 * width * sizeof(float), false, QUAD});
        optional(all, {"the hidden keys", call.pointer(2), rows * sizeof(float), false, sizeof(float)});
        return all;
    };
    const auto run = [tensor](const Call& call) {
        const auto *qkv = host<T>(call.pointer(0));
        const auto *bias = host<float>(call.pointer(1)), *hidden = host<float>(call.pointer(2));
        auto* mixed = host<T>(call.pointer(3));
        const Ahead ahead = ahead_of(call, 4);
        launch(call, [&] {
            if (!tensor) attention_plain<T>(qkv, bias, hidden, mixed, ahead);
            else if constexpr (sizeof(T) == 2) attention_tensor<T>(qkv, bias, hidden, mixed, ahead);
        });
    };
    return {{P, P, P, P, P, P}, threads, touches, run};
}

constexpr int64_t EMULATED = 1 << 21;  // multiplications up to which a product is run thread by thread

// The same by plain loops: what the threads do, smaller products show.
template <typename T>
void product_by_loops(const T* x, const T* weight, const Finish<T>& to, int rows, int depth, int outputs, int parts) {
    const Type type = std::is_same_v<T, F16> ? R_16F : R_16BF;
    const int share = (depth / DEEP + parts - 1) / parts * DEEP;
    std::vector<float> sums(size_t(rows) * outputs);
    for (int part = 0; part < parts; ++part) {
        const int begun = part * share, deep = std::min(share, depth - begun);
        multiply({outputs, rows, deep, true, false, Address(weight + begun), Address(x + begun), Address(sums.data()), type, type, R_32F,
                  depth, depth, outputs, 1.0, 1});
        if (to.planes) std::copy(sums.begin(), sums.end(), to.planes + size_t(part) * sums.size());
        else with_activation<T>(to.activation, [&](auto activation) {
            for (size_t at = 0; at < sums.size(); ++at)
                to.narrow[at] = narrowed(activation(sums[at] + (to.bias ? to.bias[at % outputs] : 0.f)), T());
        });
    }
}

// Parameters: x, weight, bias, narrow, planes; rows, depth, outputs, activation; what is asked for ahead.
template <typename T, int COLUMNS>
Kernel few_rows_of() {
    const auto touches = [](const Call& call) {
        const int rows = call.get<int>(5), depth = call.get<int>(6), outputs = call.get<int>(7);
        const unsigned row_tiles = unsigned(rows + TILE_ROWS - 1) / TILE_ROWS, parts = call.grid.y / row_tiles;
        if (depth % DEEP || outputs % COLUMNS || int(call.grid.x) * COLUMNS != outputs || call.grid.y % row_tiles)
            fail("a product of %d × %d × %d by %u × %u blocks", rows, depth, outputs, call.grid.x, call.grid.y);
        constexpr size_t stages = STAGES * (TILE_ROWS + COLUMNS) * ROW_BYTES;
        constexpr size_t sums = sizeof(float) * PRODUCT_WARPS * TILE_ROWS * SUMS_STRIDE<COLUMNS>;
        if (call.block.x != 32 * PRODUCT_WARPS || call.shared != std::max(stages, sums))
            fail("a product with %u threads and %u bytes", call.block.x, call.shared);
        if (!call.pointer(3) == !call.pointer(4)) fail("a product goes to one place");
        const size_t values = size_t(rows) * outputs;
        Accesses all{{"x", call.pointer(0), size_t(rows) * depth * sizeof(T), false, QUAD},
                     {"the matrix", call.pointer(1), size_t(outputs) * depth * sizeof(T), false, QUAD}};
        optional(all, {"the bias", call.pointer(2), outputs * sizeof(float), false, QUAD});
        optional(all, {"the result", call.pointer(3), values * sizeof(T), true, VECTOR<T>});
        optional(all, {"the planes", call.pointer(4), parts * values * sizeof(float), true, QUAD});
        return all;
    };
    const auto run = [](const Call& call) {
        const auto *x = host<T>(call.pointer(0)), *weight = host<T>(call.pointer(1));
        const Finish<T> to{host<float>(call.pointer(2)), host<T>(call.pointer(3)), host<float>(call.pointer(4)), call.get<int>(8)};
        const int rows = call.get<int>(5), depth = call.get<int>(6), outputs = call.get<int>(7);
        const int parts = int(call.grid.y) / ((rows + TILE_ROWS - 1) / TILE_ROWS);
        const Ahead ahead = ahead_of(call, 9);
        if (std::getenv("CARD_WRONG_PRODUCTS")) return;  // what was there stays: a card on which they fail
        if (int64_t(rows) * depth * outputs > EMULATED) return product_by_loops(x, weight, to, rows, depth, outputs, parts);
        launch(call, [&] { few_rows<T, COLUMNS>(x, weight, to, rows, depth, outputs, ahead); });
    };
    return {{P, P, P, P, P, I, I, I, I, P, P}, 32 * PRODUCT_WARPS, touches, run};
}

template <typename T>
std::shared_ptr<Kernel> of_type(const std::string& name) {
    const auto made = [](Kernel kernel) { return std::make_shared<Kernel>(std::move(kernel)); };
    if (name == "embed_norm") return made(embed<T>());
    if (name == "residual_norm") return made(residual<T, 1>());
    if (name == "residual_norm_planes") return made(residual<T, 8>());
    if (name == "norm_rows") return made(norms<T>());
    if (name == "norm_many_128") return made(norms_many<T, 1>());
    if (name == "norm_many_256") return made(norms_many<T, 2>());
    if (name == "norm_many_768") return made(norms_many<T, 6>());
    if (name == "norm_many_1024") return made(norms_many<T, 8>());
    if (name == "norm_many_1280") return made(norms_many<T, 10>());
    if (name == "residual_norm_many_128") return made(residual_many<T, 1>());
    if (name == "residual_norm_many_256") return made(residual_many<T, 2>());
    if (name == "residual_norm_many_768") return made(residual_many<T, 6>());
    if (name == "residual_norm_many_1024") return made(residual_many<T, 8>());
    if (name == "residual_norm_many_1280") return made(residual_many<T, 10>());
    if (name == "bias_activate") return made(activation<T, 1>());
    if (name == "bias_activate_many") return made(activation<T, 4>());
    if (name == "attention_plain") return made(attention<T>(false));
    if constexpr (sizeof(T) == 2) {
        if (name == "attention_tensor") return made(attention<T>(true));
        if (name == "product_32") return made(few_rows_of<T, 32>());
        if (name == "product_64") return made(few_rows_of<T, 64>());
    }
    return nullptr;
}

}  // namespace

std::shared_ptr<Kernel> fused_kernel(const std::string& only, const std::string& name) {
    std::string ending = "_" + only;
    for (char& letter : ending) letter = char(std::tolower(letter));
    if (name.size() < ending.size() || name.compare(name.size() - ending.size(), ending.size(), ending)) return nullptr;
    const std::string kernel = name.substr(0, name.size() - ending.size());
    if (only == "F32") return of_type<float>(kernel);
    if (only == "F16") return of_type<F16>(kernel);
    if (only == "BF16") return of_type<BF16>(kernel);
    return nullptr;
}

}  // namespace card
