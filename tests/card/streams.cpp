// Who comes before whom: streams, events, and work that is put off as long as the rules of CUDA allow.
#include "streams.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

namespace card {

namespace {

// What the host has waited for. One for all threads: whoever hands something to another thread has
// ordered the two by that.
Clock waited;
uint64_t host_time = 0;

std::set<Stream*>& streams() {
    static auto* all = new std::set<Stream*>;
    return *all;
}

std::vector<std::string> at_work;

void join(Clock& clock, const Clock& other) {
    if (clock.size() < other.size()) clock.resize(other.size());
    for (size_t index = 0; index < other.size(); ++index) clock[index] = std::max(clock[index], other[index]);
}

bool eager() {
    static const bool value = [] {
        const char* order = std::getenv("CARD_ORDER");
        return order && std::strcmp(order, "eager") == 0;
    }();
    return value;
}

void run_up_to(Stream* stream, uint64_t position);

// Where this program's own time goes, by the name of the work.
std::map<std::string, std::pair<uint64_t, double>> spent;

void run_one(Stream* stream, Operation operation) {
    const auto begun = std::chrono::steady_clock::now();
    if (operation.until.stream) run_up_to(operation.until.stream, operation.until.position);
    if (!operation.work.name.empty()) {
        at_work.push_back(operation.work.name + " on stream " + std::to_string(stream->number));
        const Moment moment{stream->number, operation.clock[stream->number]};
        if (operation.work.touches)
            for (const Access& access : operation.work.touches()) touch(access, moment, operation.clock);
        if (operation.work.run) operation.work.run();
        if (operation.work.frees) release(operation.work.frees, Kind::Device, moment, operation.clock);
        at_work.pop_back();
        stream->milliseconds += operation.work.milliseconds;
        counts().operations++;
        auto& [times, seconds] = spent[operation.work.name];
        times++;
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    }
}

void run_up_to(Stream* stream, uint64_t position) {
    while (stream->run < position) {
        Operation operation = std::move(stream->queue.front());
        stream->queue.pop_front();
        stream->run++;
        run_one(stream, std::move(operation));
    }
}

void push(Stream* stream, Work work, const Mark& until) {
    join(stream->clock, waited);
    if (until.stream) join(stream->clock, until.clock);
    if (stream->clock.size() <= size_t(stream->number)) stream->clock.resize(stream->number + 1);
    stream->clock[stream->number] = ++stream->put;
    stream->queue.push_back({std::move(work), stream->clock, until});
    if (eager()) run_up_to(stream, stream->put);
}

// What nobody has waited for runs at the end, too.
struct End {
    ~End() {
        CARD_CALL;
        wait_for_all();
        check_fences();
        if (!std::getenv("CARD_REPORT")) return;
        const Counts& all = counts();
        std::fprintf(stderr,
                     "fake card: %llu operations: %llu kernels, %llu products; %llu kernels may overlap; %llu captures, %llu replays, %llu calls refused in a "
                     "capture; %llu bytes at most, %llu at the end\n",
                     (unsigned long long)all.operations, (unsigned long long)all.kernels, (unsigned long long)all.products,
                     (unsigned long long)all.overlapping,
                     (unsigned long long)all.captures, (unsigned long long)all.launches_of_graphs,
                     (unsigned long long)all.refused, (unsigned long long)usage().peak, (unsigned long long)usage().now);
        for (const auto& [name, all] : spent)
            if (all.second > 1) std::fprintf(stderr, "fake card: %8llu × %s, %.1f s\n", (unsigned long long)all.first, name.c_str(), all.second);
    }
} at_the_end;

}  // namespace

std::recursive_mutex& turn() {
    static auto* mutex = new std::recursive_mutex;
    return *mutex;
}

Counts& counts() {
    static Counts value{};
    return value;
}

const char* running() { return at_work.empty() ? "a call of the host" : at_work.back().c_str(); }

// ---- Streams -----------------------------------------------------------------------------------------

Stream* make_stream() {
    static int made = 0;
    auto* stream = new Stream{};
    stream->number = ++made;
    stream->clock.resize(stream->number + 1);
    streams().insert(stream);
    return stream;
}

Stream* stream_of(CUstream handle) {
    if (handle == nullptr || handle == CU_STREAM_LEGACY) fail("the legacy stream waits for all others; nothing here may use it");
    if (handle == CU_STREAM_PER_THREAD) {
        static thread_local Stream* own = nullptr;
        if (!own) own = make_stream();
        return own;
    }
    auto* stream = reinterpret_cast<Stream*>(handle);
    if (!streams().count(stream)) fail("a stream that does not exist (any more)");
    return stream;
}

void forget_stream(Stream* stream) {
    // Its work goes on to its end; only the handle is gone.
    run_up_to(stream, stream->put);
    streams().erase(stream);
}

CUresult put(CUstream handle, Work work) {
    Stream* stream = stream_of(handle);
    if (stream->capture) {
        stream->capture->graph.nodes.push_back(std::move(work));
        return stream->capture->broken ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    }
    push(stream, std::move(work), {});
    return CUDA_SUCCESS;
}

void wait_for_stream(CUstream handle) {
    Stream* stream = stream_of(handle);
    run_up_to(stream, stream->put);
    join(waited, stream->clock);
}

void run_all() {
    for (Stream* stream : streams()) run_up_to(stream, stream->put);
}

void wait_for_all() {
    run_all();
    for (Stream* stream : streams()) join(waited, stream->clock);
}

// ---- Events ------------------------------------------------------------------------------------------

CUresult record(Event& event, CUstream handle) {
    Stream* stream = stream_of(handle);
    event.recorded = true;
    if (stream->capture) {
        event.mark = {stream, 0, {}, stream->capture.get()};
        return CUDA_SUCCESS;
    }
    auto reached = event.milliseconds = std::make_shared<double>(0);
    push(stream, {"an event", nullptr, [reached, stream] { *reached = stream->milliseconds; }, 0}, {});
    event.mark = {stream, stream->put, stream->clock, nullptr};
    return CUDA_SUCCESS;
}

CUresult wait_event(CUstream handle, const Event& event) {
    Stream* stream = stream_of(handle);
    if (!event.recorded) return CUDA_SUCCESS;
    if (stream->capture && event.mark.capture != stream->capture.get()) {
        stream->capture->broken = true;
        counts().refused++;
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (stream->capture) return CUDA_SUCCESS;  // the same stream: in order anyway
    if (event.mark.capture) fail("a second stream joins a capture, which the fake card cannot do");
    push(stream, {}, event.mark);
    return CUDA_SUCCESS;
}

CUresult synchronize(const Event& event) {
    if (!event.recorded) return CUDA_SUCCESS;
    if (event.mark.capture) return CUDA_ERROR_CAPTURED_EVENT;
    reach(event.mark);
    join(waited, event.mark.clock);
    return CUDA_SUCCESS;
}

void reach(const Mark& mark) { run_up_to(mark.stream, mark.position); }

// ---- Capture -----------------------------------------------------------------------------------------

bool capturing(CUstream handle) { return stream_of(handle)->capture != nullptr; }

Capture* capture_of_this_thread() {
    for (Stream* stream : streams())
        if (stream->capture && stream->capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
            stream->capture->thread == std::this_thread::get_id())
            return stream->capture.get();
    return nullptr;
}

bool any_capture() {
    for (Stream* stream : streams())
        if (stream->capture) return true;
    return false;
}

void break_captures() {
    for (Stream* stream : streams())
        if (stream->capture) stream->capture->broken = true;
}

CUresult refused_in_capture(const char*) {
    if (Capture* capture = capture_of_this_thread()) {
        capture->broken = true;
        counts().refused++;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

// ---- The host ----------------------------------------------------------------------------------------

Clock host_clock() {
    if (waited.empty()) waited.resize(1);
    waited[0] = ++host_time;
    return waited;
}

Moment host_moment() { return {0, host_time}; }

void host_waited_for(const Clock& clock) { join(waited, clock); }

}  // namespace card
