// Runs one of our kernels on a CPU: `emulated KERNEL TYPE ROWS WIDTH OPTION < in > out`. Inputs and
// outputs are f32 and follow each other; 16-bit ones are rounded on the way in and widened on the way out.
#include "emulator.h"

#include <list>
#include <string>

static std::vector<float> input;
static size_t taken = 0;
static std::list<std::vector<float>> given_out;

// The next values, in a place of their own: vectors of four are read, which must lie as on a card.
static float* take(size_t n) {
    if (taken + n > input.size()) std::fprintf(stderr, "too little input\n"), std::exit(2);
    taken += n;
    return given_out.emplace_back(input.data() + taken - n, input.data() + taken).data();
}
template <typename T>
static std::vector<T> rounded(size_t n) {
    const float* from = take(n);
    std::vector<T> all(n);
    for (size_t index = 0; index < n; ++index) all[index] = narrowed(from[index], T());
    return all;
}
template <typename T>
static void give(const std::vector<T>& values) {
    for (const T value : values) {
        const float wide = widened(value);
        std::fwrite(&wide, 4, 1, stdout);
    }
}

// Values where copies of 16 bytes find them.
template <typename T>
struct Lines {
    std::vector<T> room;
    T* start;
    explicit Lines(const std::vector<T>& values) : room(values.size() + 64) {
        start = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64);
        std::copy(values.begin(), values.end(), start);
    }
};

// `product_COLUMNS`, rows × width; first the depth and the activation (3 is planes), option: parts of the depth.
template <typename T>
static int product(const std::string& kernel, int rows, int outputs, int parts) {
    if constexpr (sizeof(T) == 2) {
        const int depth = int(*take(1)), activation = int(*take(1)), columns = std::atoi(kernel.c_str() + 8);
        const Lines<T> x(rounded<T>(size_t(rows) * depth)), weight(rounded<T>(size_t(outputs) * depth));
        const bool in_planes = activation == 3;
        const float* bias = in_planes ? nullptr : take(outputs);
        std::vector<T> narrow(in_planes ? 0 : size_t(rows) * outputs);
        std::vector<float> planes(in_planes ? size_t(parts) * rows * outputs : 0);
        const Finish<T> to{bias, narrow.data(), in_planes ? planes.data() : nullptr, activation};
        const int row_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        emulator::launch(outputs / columns, row_tiles * parts, 32 * PRODUCT_WARPS, [&] {
            const Ahead ahead{nullptr, 0};
            if (columns == 32) few_rows<T, 32>(x.start, weight.start, to, rows, depth, outputs, ahead);
            else few_rows<T, 64>(x.start, weight.start, to, rows, depth, outputs, ahead);
        });
        in_planes ? give(planes) : give(narrow);
        return taken == input.size() ? 0 : 2;
    }
    return 2;
}

// `residual_norm_many`, or `norm_many` alone.
template <typename T, int FOURS>
static int many_rows_of(bool alone, int rows, int option) {
    const int width = FOURS * 128;
    const size_t n = size_t(rows) * width;
    const float *product = alone ? nullptr : take(n), *bias = alone ? nullptr : take(width);
    const float *weight = take(width), *norm_bias = take(width);
    float* x = take(n);
    std::vector<float> kept(n);
    std::vector<T> normed(n);
    const Norm norm{weight, norm_bias};
    emulator::launch((rows + ROW_WARPS - 1) / ROW_WARPS, 1, 32 * ROW_WARPS, [&] {
        T* to = option ? nullptr : normed.data();
        if (alone) norm_many<T, FOURS>(x, norm, kept.data(), to, rows);
        else residual_norm_many<T, FOURS>(product, bias, norm, x, kept.data(), to, rows, Ahead{nullptr, 0});
    });
    give(kept);
    give(normed);
    return taken == input.size() ? 0 : 2;
}
template <typename T>
static int many_rows(bool alone, int rows, int width, int option) {
    if (width == 128) return many_rows_of<T, 1>(alone, rows, option);
    if (width == 256) return many_rows_of<T, 2>(alone, rows, option);
    if (width == 768) return many_rows_of<T, 6>(alone, rows, option);
    if (width == 1024) return many_rows_of<T, 8>(alone, rows, option);
    return width == 1280 ? many_rows_of<T, 10>(alone, rows, option) : 2;
}

template <typename T>
static int run(const std::string& kernel, int rows, int width, int option) {
    const int threads = (width / 4 + 31) / 32 * 32;
    const size_t n = size_t(rows) * width;
    if (kernel == "embed_norm") {  // option: rows of the table
        std::vector<unsigned> ids;
        const float* given = take(rows);
        for (int row = 0; row < rows; ++row) ids.push_back(given[row] < 0 ? KEPT_ROW : unsigned(given[row]));
        const auto table = rounded<T>(size_t(option) * width);
        const float *positions = take(size_t(WINDOW) * width), *weight = take(width), *bias = take(width);
        float* x = take(n);
        std::vector<T> normed(n);
        emulator::launch(rows, 1, threads, [&] {
            embed_norm<T>(ids.data(), table.data(), positions, Norm{weight, bias}, x, normed.data(), width, Ahead{nullptr, 0});
        });
        give(std::vector<float>(x, x + n));
        give(normed);
    } else if (kernel == "residual_norm") {  // option: planes, and 10 more without a norm
        const int planes = option % 10;
        const float *product = take(n * planes), *bias = take(width), *weight = take(width), *norm_bias = take(width);
        float* x = take(n);
        std::vector<float> kept(n);
        std::vector<T> normed(n);
        emulator::launch(rows, 1, threads, [&] {
            T* to = option >= 10 ? nullptr : normed.data();
            const Norm norm{weight, norm_bias};
            const auto kernel = planes == 1 ? residual_norm<T, 1> : residual_norm<T, 8>;
            kernel(product, planes, bias, norm, x, kept.data(), to, width, Ahead{nullptr, 0});
        });
        give(kept);
        give(normed);
    } else if (kernel == "residual_norm_many" || kernel == "norm_many") {  // option 1: without a norm
        return many_rows<T>(kernel == "norm_many", rows, width, option);
    } else if (kernel == "norm_rows") {  // option 1: one row of each window
        const int to = option ? rows / WINDOW : rows;
        std::vector<unsigned> ends;
        if (option) for (int window = 0; window < to; ++window) ends.push_back(unsigned(*take(1)));
        const float *weight = take(width), *bias = take(width), *x = take(n);
        std::vector<float> plain(size_t(to) * width);
        std::vector<T> narrow(plain.size());
        emulator::launch(to, 1, threads, [&] {
            norm_rows<T>(x, option ? ends.data() : nullptr, Norm{weight, bias}, plain.data(), narrow.data(), width);
        });
        give(plain);
        give(narrow);
    } else if (kernel == "bias_activate" || kernel == "bias_activate_many") {  // option: which
        auto x = rounded<T>(n);
        const float* bias = take(width);
        const int across = (width / 8 + 127) / 128, each = kernel == "bias_activate" ? 1 : 4;
        emulator::launch(across, (rows + each - 1) / each, 128, [&] {
            const Ahead ahead{nullptr, 0};
            if (each == 1) bias_activate<T, 1>(x.data(), bias, x.data(), rows, width, option, ahead);
            else bias_activate<T, 4>(x.data(), bias, x.data(), rows, width, option, ahead);
        });
        give(x);
    } else if (kernel == "attention_plain" || kernel == "attention_tensor") {  // option 1: hidden keys
        const auto qkv = rounded<T>(3 * n);
        const float *bias = take(3 * width), *hidden = option ? take(rows) : nullptr;
        std::vector<T> mixed(n);
        const bool plain = kernel == "attention_plain";
        emulator::launch(width / HEAD, rows / WINDOW, 32 * (plain ? PLAIN_WARPS : TENSOR_WARPS), [&] {
            if (plain) attention_plain<T>(qkv.data(), bias, hidden, mixed.data(), Ahead{nullptr, 0});
            else if constexpr (sizeof(T) == 2) attention_tensor<T>(qkv.data(), bias, hidden, mixed.data(), Ahead{nullptr, 0});
        });
        give(mixed);
    } else if (kernel == "ahead") {  // option: bytes. Given back: how often each line was asked for
        std::vector<unsigned char> memory(option);
        emulator::launch(rows, width, 64, [&] { ask(Ahead{memory.data(), Size(option)}), begin(); });
        std::vector<float> times((option + LINE - 1) / LINE);
        for (const auto* line : emulator::asked) times.at((line - memory.data()) / LINE)++;
        give(times);
    } else return product<T>(kernel, rows, width, option);
    return taken == input.size() ? 0 : 2;
}

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    float value;
    while (std::fread(&value, 4, 1, stdin) == 1) input.push_back(value);
    const std::string type = argv[2];
    const int rows = std::atoi(argv[3]), width = std::atoi(argv[4]), option = std::atoi(argv[5]);
    if (type == "f32") return run<float>(argv[1], rows, width, option);
    if (type == "f16") return run<F16>(argv[1], rows, width, option);
    if (type == "bf16") return run<BF16>(argv[1], rows, width, option);
    return 2;
}
