// candle's kernels of one value at a time: casts, affine, unary, binary, comparisons, selection.
// (candle-kernels: cast.cu, affine.cu, unary.cu, binary.cu, ternary.cu.)
#include <map>

#include "candle.h"

namespace card {

namespace {

constexpr size_t P = 8, S = 8;  // a pointer, a size
constexpr unsigned THREADS = 1024;

using Unary = double (*)(double);
using Binary = double (*)(double, double);

const std::map<std::string, Unary>& unaries() {
    static const std::map<std::string, Unary> all = {
        {"copy", [](double x) { return x; }},
        {"neg", [](double x) { return -x; }},
        {"recip", [](double x) { return 1 / x; }},
        {"exp", [](double x) { return std::exp(x); }},
        {"log", [](double x) { return std::log(x); }},
        {"sin", [](double x) { return std::sin(x); }},
        {"cos", [](double x) { return std::cos(x); }},
        {"tanh", [](double x) { return std::tanh(x); }},
        {"erf", [](double x) { return std::erf(x); }},
        {"abs", [](double x) { return std::fabs(x); }},
        {"sqr", [](double x) { return x * x; }},
        {"sqrt", [](double x) { return std::sqrt(x); }},
        {"relu", [](double x) { return x > 0 ? x : 0; }},
        {"silu", [](double x) { return x / (1 + std::exp(-x)); }},
        {"sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
        {"gelu_erf", [](double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }},
        {"gelu", [](double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
    };
    return all;
}

const std::map<std::string, Binary>& binaries() {
    static const std::map<std::string, Binary> all = {
        {"badd", [](double x, double y) { return x + y; }},
        {"bsub", [](double x, double y) { return x - y; }},
        {"bmul", [](double x, double y) { return x * y; }},
        {"bdiv", [](double x, double y) { return x / y; }},
        {"bminimum", [](double x, double y) { return x < y ? x : y; }},
        {"bmaximum", [](double x, double y) { return x > y ? x : y; }},
        {"eq", [](double x, double y) { return double(x == y); }},
        {"ne", [](double x, double y) { return double(x != y); }},
        {"lt", [](double x, double y) { return double(x < y); }},
        {"le", [](double x, double y) { return double(x <= y); }},
        {"gt", [](double x, double y) { return double(x > y); }},
        {"ge", [](double x, double y) { return double(x >= y); }},
    };
    return all;
}

void check_info(std::vector<Access>& all, Address info, size_t words) {
    if (info) all.push_back({"its shape", info, words * sizeof(size_t), false, sizeof(size_t)});
}

using Made = std::function<std::function<double(double)>(const Call&)>;

// (count, n_dims, info, [a scalar,] in, out, [two scalars]): out[i] = make(call)(in[i]).
std::shared_ptr<Kernel> one_input(std::vector<size_t> sizes, size_t in, Number from, Number to, Made make) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = std::move(sizes), kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        std::vector<Access> all;
        const size_t count = call.get<size_t>(0), n_dims = call.get<size_t>(1);
        check_info(all, call.pointer(2), 2 * n_dims);
        reads(all, "what goes in", call.pointer(in), from, strided(call.pointer(2), n_dims, 1, count));
        all.push_back({"what comes out", call.pointer(in + 1), count * bytes_of(to), true, bytes_of(to)});
        return all;
    };
    kernel->run = [=](const Call& call) {
        const size_t count = call.get<size_t>(0);
        const Strided shape = strided(call.pointer(2), call.get<size_t>(1), 1, count);
        const auto of = make(call);
        const Address source = call.pointer(in), target = call.pointer(in + 1);
        Walk walk(shape);
        for (size_t index = 0; index < count; ++index) set(target, to, index, of(value_at(source, from, walk.next())));
    };
    return kernel;
}

std::shared_ptr<Kernel> two_inputs(Number from, Number to, Binary of) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, S, P, P, P, P}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        std::vector<Access> all;
        const size_t count = call.get<size_t>(0), n_dims = call.get<size_t>(1);
        check_info(all, call.pointer(2), 3 * n_dims);
        reads(all, "the left side", call.pointer(3), from, strided(call.pointer(2), n_dims, 1, count));
        reads(all, "the right side", call.pointer(4), from, strided(call.pointer(2), n_dims, 2, count));
        all.push_back({"what comes out", call.pointer(5), count * bytes_of(to), true, bytes_of(to)});
        return all;
    };
    kernel->run = [=](const Call& call) {
        const size_t count = call.get<size_t>(0), n_dims = call.get<size_t>(1);
        const Strided left = strided(call.pointer(2), n_dims, 1, count), right = strided(call.pointer(2), n_dims, 2, count);
        const Address x = call.pointer(3), y = call.pointer(4), target = call.pointer(5);
        Walk walk(left), other(right);
        for (size_t index = 0; index < count; ++index)
            set(target, to, index, of(value_at(x, from, walk.next()), value_at(y, from, other.next())));
    };
    return kernel;
}

// where: (count, n_dims, info, ids, t, f, out).
std::shared_ptr<Kernel> selection(Number ids, Number values) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, S, P, P, P, P, P}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        std::vector<Access> all;
        const size_t count = call.get<size_t>(0), n_dims = call.get<size_t>(1);
        const auto shape = [&](size_t which) { return strided(call.pointer(2), n_dims, which, count); };
        check_info(all, call.pointer(2), 4 * n_dims);
        reads(all, "the condition", call.pointer(3), ids, shape(1));
        reads(all, "where it holds", call.pointer(4), values, shape(2));
        reads(all, "where it does not", call.pointer(5), values, shape(3));
        all.push_back({"what comes out", call.pointer(6), count * bytes_of(values), true, bytes_of(values)});
        return all;
    };
    kernel->run = [=](const Call& call) {
        const size_t count = call.get<size_t>(0), n_dims = call.get<size_t>(1);
        const auto shape = [&](size_t which) { return strided(call.pointer(2), n_dims, which, count); };
        const Strided condition = shape(1), yes = shape(2), no = shape(3);
        for (size_t index = 0; index < count; ++index) {
            const bool holds = value_at(call.pointer(3), ids, condition.place(index)) != 0;
            const double value = holds ? value_at(call.pointer(4), values, yes.place(index)) : value_at(call.pointer(5), values, no.place(index));
            set(call.pointer(6), values, index, value);
        }
    };
    return kernel;
}

std::shared_ptr<Kernel> cast(const std::string& types) {
    const size_t middle = types.find('_');
    Number from, to;
    if (middle == std::string::npos || !number_of(types.substr(0, middle), from) || !number_of(types.substr(middle + 1), to))
        return nullptr;
    return one_input({S, S, P, P, P}, 3, from, to, [](const Call&) { return [](double x) { return x; }; });
}

}  // namespace

std::shared_ptr<Kernel> elementwise(const std::string& name) {
    std::string rest;
    Number number, ids;
    if (after(name, "cast_", rest)) return cast(rest);
    if (after(name, "where_u8_", rest) && number_of(rest, number) && number_of("u8", ids)) return selection(ids, number);
    if (after(name, "affine_", rest) && number_of(rest, number)) {
        const size_t size = bytes_of(number);
        return one_input({S, S, P, P, P, size, size}, 3, number, number, [number](const Call& call) {
            const double mul = scalar(call, 5, number), add = scalar(call, 6, number);
            return [=](double x) { return x * mul + add; };
        });
    }
    if (after(name, "upowf_", rest) && number_of(rest, number))
        return one_input({S, S, P, bytes_of(number), P, P}, 4, number, number,
                         [number](const Call& call) {
                             const double power = scalar(call, 3, number);
                             return [=](double x) { return std::pow(x, power); };
                         });
    const size_t last = name.rfind('_');
    if (last == std::string::npos || !number_of(name.substr(last + 1), number)) return nullptr;
    const std::string operation = name.substr(0, last);
    const auto binary = binaries().find(operation);
    if (binary != binaries().end()) return two_inputs(number, operation[0] == 'b' ? number : Number::U8, binary->second);
    const auto unary = operation[0] == 'u' ? unaries().find(operation.substr(1)) : unaries().end();
    if (unary == unaries().end()) return nullptr;
    return one_input({S, S, P, P, P}, 3, number, number, [of = unary->second](const Call&) { return of; });
}

}  // namespace card
