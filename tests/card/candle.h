// What the twins of candle's kernels share: values of any type, and tensors that do not lie together.
#pragma once
#include <string>

#include "card.h"
#include "numbers.h"

namespace card {

enum class Number { F32, F64, F16, BF16, U8, U32, I64 };

// "f32" → Number::F32; false if there is no such type.
bool number_of(const std::string& name, Number& number);
size_t bytes_of(Number number);
double value_at(Address at, Number number, size_t index);
void set(Address at, Number number, size_t index, double value);
double scalar(const Call& call, size_t index, Number number);

// A tensor of `dims`, its values `strides` apart.
struct Strided {
    std::vector<size_t> dims, strides;

    size_t count() const;
    bool together() const;
    size_t place(size_t index) const;  // of a value, counted from the first
};

// The places of a tensor's values, one after the other.
class Walk {
  public:
    explicit Walk(const Strided& shape) : shape(shape), index(shape.dims.size()) {}
    size_t next() {
        const size_t found = place;
        for (size_t dim = shape.dims.size(); dim-- > 0;) {
            place += shape.strides[dim];
            if (++index[dim] < shape.dims[dim]) break;
            place -= index[dim] * shape.strides[dim];
            index[dim] = 0;
        }
        return found;
    }

  private:
    const Strided& shape;
    std::vector<size_t> index;
    size_t place = 0;
};

// dims and the `which`-th strides of what candle hands to its kernels; all together where `info` is null.
Strided strided(Address info, size_t n_dims, size_t which, size_t count);

// The bytes that its values lie in, and no others.
void reads(std::vector<Access>& all, const char* what, Address at, Number number, const Strided& shape);

// A name such as "cast_f32_f16" after "cast_"; false if it begins otherwise.
bool after(const std::string& name, const std::string& begin, std::string& rest);

std::shared_ptr<Kernel> elementwise(const std::string& name);  // elementwise.cpp
std::shared_ptr<Kernel> over_rows(const std::string& name);    // rows.cpp
std::shared_ptr<Kernel> moving(const std::string& name);       // moving.cpp

}  // namespace card
