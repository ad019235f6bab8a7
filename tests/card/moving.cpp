// candle's kernels that only move values: rows of a matrix, rectangles, constants, picks.
// (candle-kernels: fill.cu, indexing.cu.)
#include "candle.h"

namespace card {

namespace {

constexpr size_t P = 8, S = 8, I = 4;
constexpr unsigned THREADS = 1024;

// (in, out, rows, columns, stride in, stride out)
std::shared_ptr<Kernel> rectangle(Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {P, P, I, I, I, I}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        std::vector<Access> all;
        const size_t size = bytes_of(number), rows = call.get<unsigned>(2), columns = call.get<unsigned>(3);
        for (size_t row = 0; row < rows; ++row) {
            all.push_back({"what goes in", call.pointer(0) + row * call.get<unsigned>(4) * size, columns * size, false, size});
            all.push_back({"what comes out", call.pointer(1) + row * call.get<unsigned>(5) * size, columns * size, true, size});
        }
        return all;
    };
    kernel->run = [=](const Call& call) {
        const size_t size = bytes_of(number), columns = call.get<unsigned>(3);
        for (size_t row = 0; row < call.get<unsigned>(2); ++row)
            std::memcpy(host<void>(call.pointer(1) + row * call.get<unsigned>(5) * size),
                        host<void>(call.pointer(0) + row * call.get<unsigned>(4) * size), columns * size);
    };
    return kernel;
}

// (count, n_dims, info, value, out)
std::shared_ptr<Kernel> constant(Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, S, P, bytes_of(number), P}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        std::vector<Access> all;
        reads(all, "what is set", call.pointer(4), number, strided(call.pointer(2), call.get<size_t>(1), 1, call.get<size_t>(0)));
        for (Access& access : all) access.writes = true;
        return all;
    };
    kernel->run = [=](const Call& call) {
        const size_t count = call.get<size_t>(0);
        const Strided shape = strided(call.pointer(2), call.get<size_t>(1), 1, count);
        for (size_t index = 0; index < count; ++index) set(call.pointer(4), number, shape.place(index), scalar(call, 3, number));
    };
    return kernel;
}

// Rows by number: (count, n_dims, info, ids, in, out, left, rows, ids, right)
std::shared_ptr<Kernel> picked(Number ids, Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, S, P, P, P, P, S, S, S, S}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        const size_t left = call.get<size_t>(6), rows = call.get<size_t>(7), n_ids = call.get<size_t>(8), right = call.get<size_t>(9);
        if (!strided(call.pointer(2), call.get<size_t>(1), 1, n_ids).together()) fail("the numbers of rows do not lie together");
        return std::vector<Access>{{"the numbers", call.pointer(3), n_ids * bytes_of(ids), false, bytes_of(ids)},
                                   {"what goes in", call.pointer(4), left * rows * right * bytes_of(number), false, bytes_of(number)},
                                   {"what comes out", call.pointer(5), call.get<size_t>(0) * bytes_of(number), true, bytes_of(number)}};
    };
    kernel->run = [=](const Call& call) {
        const size_t rows = call.get<size_t>(7), n_ids = call.get<size_t>(8), right = call.get<size_t>(9);
        for (size_t index = 0; index < call.get<size_t>(0); ++index) {
            const size_t left = index / (n_ids * right), row = size_t(value_at(call.pointer(3), ids, index / right % n_ids));
            if (row >= rows) fail("row %zu of %zu", row, rows);
            set(call.pointer(5), number, index, value_at(call.pointer(4), number, (left * rows + row) * right + index % right));
        }
    };
    return kernel;
}

// Values by number: (count, ids, in, out, left, rows, ids, right)
std::shared_ptr<Kernel> gathered(Number ids, Number number) {
    auto kernel = std::make_shared<Kernel>();
    kernel->sizes = {S, P, P, P, S, S, S, S}, kernel->most_threads = THREADS;
    kernel->touches = [=](const Call& call) {
        const size_t count = call.get<size_t>(0), from = call.get<size_t>(4) * call.get<size_t>(5) * call.get<size_t>(7);
        return std::vector<Access>{{"the numbers", call.pointer(1), count * bytes_of(ids), false, bytes_of(ids)},
                                   {"what goes in", call.pointer(2), from * bytes_of(number), false, bytes_of(number)},
                                   {"what comes out", call.pointer(3), count * bytes_of(number), true, bytes_of(number)}};
    };
    kernel->run = [=](const Call& call) {
        const size_t rows = call.get<size_t>(5), n_ids = call.get<size_t>(6), right = call.get<size_t>(7);
        for (size_t index = 0; index < call.get<size_t>(0); ++index) {
            const size_t row = size_t(value_at(call.pointer(1), ids, index)), left = index / (right * n_ids);
            if (row >= rows) fail("row %zu of %zu", row, rows);
            set(call.pointer(3), number, index, value_at(call.pointer(2), number, (left * rows + row) * right + index % right));
        }
    };
    return kernel;
}

}  // namespace

std::shared_ptr<Kernel> moving(const std::string& name) {
    std::string rest;
    Number number;
    if (after(name, "copy2d_", rest) && number_of(rest, number)) return rectangle(number);
    if (after(name, "const_set_", rest) && number_of(rest, number)) return constant(number);
    for (const auto& [text, ids] : {std::pair{"u32", Number::U32}, std::pair{"i64", Number::I64}, std::pair{"u8", Number::U8}}) {
        if (after(name, std::string("is_") + text + "_", rest) && number_of(rest, number)) return picked(ids, number);
        if (after(name, std::string("gather_") + text + "_", rest) && number_of(rest, number)) return gathered(ids, number);
    }
    return nullptr;
}

}  // namespace card
