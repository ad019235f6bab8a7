// candle's kernels over rows: sums and extremes, softmax, norms. (candle-kernels: reduce.cu.)
#include <limits>

#include "candle.h"

namespace card {

namespace {

constexpr size_t P = 8, S = 8, I = 4;

// Reductions: (count, values a sum, n_dims, info, in, out); the summed dimensions are the last ones.
std::shared_ptr<Kernel> reduction(Number number, bool small, double start, double (*with)(double, double)) {
    const auto parts = [small](const Call& call) {
        const size_t count = call.get<size_t>(0), each = call.get<size_t>(1);
        return std::pair<size_t, size_t>{small ? count : count / each, each};
    };
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, S, S, P, P, P}, kernel->most_threads = 1024;
    kernel->touches = [=](const Call& call) {
        const auto [sums, each] = parts(call);
        if (!small && call.grid.x != sums) fail("%u blocks for %zu sums", call.grid.x, sums);
        std::vector<Access> all{{"its shape", call.pointer(3), 2 * call.get<size_t>(2) * sizeof(size_t), false, sizeof(size_t)}};
        reads(all, "what is summed", call.pointer(4), number, strided(call.pointer(3), call.get<size_t>(2), 1, sums * each));
        all.push_back({"the sums", call.pointer(5), sums * bytes_of(number), true, bytes_of(number)});
        return all;
    };
    kernel->run = [=](const Call& call) {
        const auto [sums, each] = parts(call);
        const Strided shape = strided(call.pointer(3), call.get<size_t>(2), 1, sums * each);
        Walk walk(shape);
        for (size_t sum = 0; sum < sums; ++sum) {
            double value = start;
            for (size_t index = 0; index < each; ++index) value = with(value, value_at(call.pointer(4), number, walk.next()));
            set(call.pointer(5), number, sum, value);
        }
    };
    return kernel;
}

// (in, out, columns): a block has a row, in y or in x.
std::shared_ptr<Kernel> softmax(Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {P, P, I}, kernel->most_threads = 1024;
    const auto values = [](const Call& call) { return size_t(call.grid.x) * call.get<int>(2); };
    kernel->touches = [=](const Call& call) {
        const size_t bytes = values(call) * bytes_of(number);
        return std::vector<Access>{{"what goes in", call.pointer(0), bytes, false}, {"what comes out", call.pointer(1), bytes, true}};
    };
    kernel->run = [=](const Call& call) {
        const size_t columns = call.get<int>(2);
        for (size_t row = 0; row < call.grid.x; ++row) {
            double top = -std::numeric_limits<double>::infinity(), sum = 0;
            const auto at = [&](size_t column) { return value_at(call.pointer(0), number, row * columns + column); };
            for (size_t column = 0; column < columns; ++column) top = std::max(top, at(column));
            for (size_t column = 0; column < columns; ++column) sum += std::exp(at(column) - top);
            for (size_t column = 0; column < columns; ++column)
                set(call.pointer(1), number, row * columns + column, std::exp(at(column) - top) / sum);
        }
    };
    return kernel;
}

// (in, out, scale, shift, columns, threads, epsilon)
std::shared_ptr<Kernel> layer_norm(Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {P, P, P, P, I, I, I}, kernel->most_threads = 1024;
    kernel->touches = [=](const Call& call) {
        const size_t row = call.get<int>(4) * bytes_of(number);
        return std::vector<Access>{{"what goes in", call.pointer(0), call.grid.x * row, false},
                                   {"what comes out", call.pointer(1), call.grid.x * row, true},
                                   {"the scale", call.pointer(2), row, false},
                                   {"the shift", call.pointer(3), row, false}};
    };
    kernel->run = [=](const Call& call) {
        const size_t columns = call.get<int>(4);
        const float epsilon = call.get<float>(6);
        for (size_t row = 0; row < call.grid.x; ++row) {
            double sum = 0, squares = 0;
            const auto at = [&](Address of, size_t index) { return value_at(of, number, index); };
            for (size_t column = 0; column < columns; ++column) sum += at(call.pointer(0), row * columns + column);
            const double mean = sum / columns;
            for (size_t column = 0; column < columns; ++column) {
                const double d = at(call.pointer(0), row * columns + column) - mean;
                squares += d * d;
            }
            const double scale = 1 / std::sqrt(squares / columns + epsilon);
            for (size_t column = 0; column < columns; ++column) {
                const double d = at(call.pointer(0), row * columns + column) - mean;
                set(call.pointer(1), number, row * columns + column, d * scale * at(call.pointer(2), column) + at(call.pointer(3), column));
            }
        }
    };
    return kernel;
}

}  // namespace

std::shared_ptr<Kernel> over_rows(const std::string& name) {
    constexpr double INFINITE = std::numeric_limits<double>::infinity();
    const auto add = [](double a, double b) { return a + b; };
    std::string rest;
    Number number;
    if (after(name, "fast_sum_small_", rest) && number_of(rest, number)) return reduction(number, true, 0, add);
    if (after(name, "fast_sum_", rest) && number_of(rest, number)) return reduction(number, false, 0, add);
    if (after(name, "fast_max_", rest) && number_of(rest, number))
        return reduction(number, false, -INFINITE, [](double a, double b) { return std::max(a, b); });
    if (after(name, "fast_min_", rest) && number_of(rest, number))
        return reduction(number, false, INFINITE, [](double a, double b) { return std::min(a, b); });
    if (after(name, "softmax_", rest) && number_of(rest, number)) return softmax(number);
    if (after(name, "layernorm_", rest) && number_of(rest, number)) return layer_norm(number);
    return nullptr;
}

}  // namespace card
