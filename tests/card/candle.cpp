// Finds the twin of a kernel of candle's modules, and what all of the twins use.
#include "candle.h"

namespace card {

bool number_of(const std::string& name, Number& number) {
    static const std::pair<const char*, Number> all[] = {{"f32", Number::F32}, {"f64", Number::F64}, {"f16", Number::F16},
                                                         {"bf16", Number::BF16}, {"u8", Number::U8}, {"u32", Number::U32},
                                                         {"i64", Number::I64}};
    for (const auto& [text, value] : all)
        if (name == text) return number = value, true;
    return false;
}

size_t bytes_of(Number number) {
    switch (number) {
        case Number::F32:
        case Number::U32: return 4;
        case Number::F64:
        case Number::I64: return 8;
        case Number::F16:
        case Number::BF16: return 2;
        case Number::U8: return 1;
    }
    fail("a type of numbers");
}

double value_at(Address at, Number number, size_t index) {
    switch (number) {
        case Number::F32: return host<float>(at)[index];
        case Number::F64: return host<double>(at)[index];
        case Number::F16: return wide(host<Half>(at)[index]);
        case Number::BF16: return wide(host<Brain>(at)[index]);
        case Number::U8: return host<uint8_t>(at)[index];
        case Number::U32: return host<uint32_t>(at)[index];
        case Number::I64: return double(host<int64_t>(at)[index]);
    }
    fail("a type of numbers");
}

void set(Address at, Number number, size_t index, double value) {
    switch (number) {
        case Number::F32: host<float>(at)[index] = float(value); return;
        case Number::F64: host<double>(at)[index] = value; return;
        case Number::F16: host<Half>(at)[index] = narrow(value, Half()); return;
        case Number::BF16: host<Brain>(at)[index] = narrow(value, Brain()); return;
        case Number::U8: host<uint8_t>(at)[index] = uint8_t(value); return;
        case Number::U32: host<uint32_t>(at)[index] = uint32_t(value); return;
        case Number::I64: host<int64_t>(at)[index] = int64_t(value); return;
    }
}

double scalar(const Call& call, size_t index, Number number) {
    if (call.values.at(index).size() != bytes_of(number)) fail("parameter %zu has another size", index);
    return value_at(Address(call.values[index].data()), number, 0);
}

size_t Strided::count() const {
    size_t all = 1;
    for (size_t size : dims) all *= size;
    return all;
}

bool Strided::together() const {
    size_t stride = 1;
    for (size_t dim = dims.size(); dim-- > 0; stride *= dims[dim])
        if (dims[dim] > 1 && strides[dim] != stride) return false;
    return true;
}

size_t Strided::place(size_t index) const {
    size_t at = 0;
    for (size_t dim = dims.size(); dim-- > 0; index /= dims[dim]) at += index % dims[dim] * strides[dim];
    return at;
}

Strided strided(Address info, size_t n_dims, size_t which, size_t count) {
    if (!info) return {{count}, {1}};
    const auto* words = host<size_t>(info);
    Strided out{{words, words + n_dims}, {words + which * n_dims, words + (which + 1) * n_dims}};
    if (out.count() != count) fail("%zu values are asked for, and the shape has %zu", count, out.count());
    return out;
}

void reads(std::vector<Access>& all, const char* what, Address at, Number number, const Strided& shape) {
    const size_t bytes = bytes_of(number), count = shape.count();
    if (count == 0) return;
    if (shape.together()) return all.push_back({what, at, count * bytes, false, bytes});
    // The last dimensions that lie together are one run.
    size_t run = 1;
    for (size_t dim = shape.dims.size(); dim-- > 0 && (shape.dims[dim] == 1 || shape.strides[dim] == run);) run *= shape.dims[dim];
    // Runs that are only repeated (strides of zero) are looked at once.
    size_t last = ~size_t(0);
    for (size_t index = 0; index < count; index += run) {
        const size_t place = shape.place(index);
        if (place != last) all.push_back({what, at + place * bytes, run * bytes, false, bytes});
        last = place;
    }
}

bool after(const std::string& name, const std::string& begin, std::string& rest) {
    if (name.compare(0, begin.size(), begin)) return false;
    return rest = name.substr(begin.size()), true;
}

std::shared_ptr<Kernel> candle_kernel(const std::string& name) {
    for (const auto find : {elementwise, over_rows, moving})
        if (auto kernel = find(name)) return kernel;
    return nullptr;
}

}  // namespace card
