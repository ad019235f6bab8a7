// A CUDA card made of host memory: what the parts of the fake libraries share.
//
// Work is put on streams and runs when somebody waits for it (or at once: CARD_ORDER=eager). What it
// touches is checked while it runs: inside a live allocation, written before it is read, and in an order
// that events, streams or the host have made certain. Whatever is wrong ends the program with a report.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace card {

using Address = CUdeviceptr;

// Says what is wrong and what ran, and ends the program.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// All calls of the fake libraries take turns.
std::recursive_mutex& turn();
#define CARD_CALL std::lock_guard<std::recursive_mutex> taken(card::turn())

// ---- Order (streams.cpp) -----------------------------------------------------------------------------

// For every stream, how much of its work has certainly happened before.
using Clock = std::vector<uint64_t>;

struct Moment {
    int stream = 0;  // 0 is the host
    uint64_t time = 0;
};

inline bool before(const Moment& moment, const Clock& clock) {
    return moment.time <= (size_t(moment.stream) < clock.size() ? clock[moment.stream] : 0);
}

// Bytes that some work reads or writes; `align` is what the kernel's loads need.
struct Access {
    const char* what;
    Address at;
    size_t bytes;
    bool writes;
    size_t align = 1;
};

// Something put on a stream. `touches` is asked when it runs: by then what it depends on has run.
struct Work {
    std::string name;
    std::function<std::vector<Access>()> touches;
    std::function<void()> run;
    double milliseconds = 0.001;  // of the card's clock
    Address frees = 0;
};

CUresult put(CUstream stream, Work work);  // or into the stream's capture
bool capturing(CUstream stream);
CUresult refused_in_capture(const char* call);  // CUDA_SUCCESS if this thread captures nothing
void wait_for_stream(CUstream stream);
void wait_for_all();
void run_all();  // without the host waiting
const char* running();  // the work that is running, for reports

// ---- Memory (memory.cpp) -----------------------------------------------------------------------------

enum class Kind { Device, Pinned };

Address allocate(size_t bytes, Kind kind, const std::string& by, Moment moment);
void touch(const Access& access, const Moment& moment, const Clock& clock);
// Ends an allocation, which is a write to all of it.
void release(Address at, Kind kind, const Moment& moment, const Clock& clock);
bool is_pinned(const void* at, size_t bytes);
bool is_device(Address at);
void check_fences();  // the bytes around all allocations are as they were
struct Usage {
    uint64_t now, peak;
};
Usage& usage();

// ---- Kernels (launch.cpp, fused.cpp, candle.cpp) -----------------------------------------------------

struct Dim3 {
    unsigned x, y, z;
};

struct Call {
    std::vector<std::vector<unsigned char>> values;  // of the parameters
    Dim3 grid, block;
    unsigned shared = 0;  // bytes of a block beside what the kernel declares

    template <typename T>
    T get(size_t index) const {
        T value;
        if (index >= values.size() || values[index].size() != sizeof(T)) fail("parameter %zu has another size", index);
        __builtin_memcpy(&value, values[index].data(), sizeof(T));
        return value;
    }
    Address pointer(size_t index) const { return get<Address>(index); }
};

struct Kernel {
    std::vector<size_t> sizes;  // of the parameters, in bytes
    unsigned most_threads;
    std::function<std::vector<Access>(const Call&)> touches;
    std::function<void(const Call&)> run;
};

// A kernel of ours compiled for one type ("F16"), or of candle's modules; null if there is none.
std::shared_ptr<Kernel> fused_kernel(const std::string& only, const std::string& name);
std::shared_ptr<Kernel> candle_kernel(const std::string& name);

template <typename T>
T* host(Address at) {
    return reinterpret_cast<T*>(at);
}

}  // namespace card
