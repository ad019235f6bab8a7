// The driver's entry points for contexts, streams, events, memory and graphs.
#include <cstdlib>
#include <cstring>
#include <map>

#include "streams.h"

using namespace card;

namespace {

constexpr size_t TOTAL_BYTES = size_t(139) << 30;
int the_context, the_pool;
thread_local CUcontext current = nullptr;
CUcontext primary() { return reinterpret_cast<CUcontext>(&the_context); }
uint64_t release_threshold = 0;

Event* event_of(CUevent handle) {
    if (!handle) fail("no event");
    return reinterpret_cast<Event*>(handle);
}

CUresult needs_context() { return current == primary() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }
#define IN_CONTEXT \
    CARD_CALL;     \
    if (CUresult status = needs_context()) return status
#define NOT_IN_CAPTURE \
    if (CUresult status = refused_in_capture(__func__)) return status

}  // namespace

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult, const char** text) { return *text = "an error of the fake card", CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) { return *device = ordinal, ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char* name, int room, CUdevice) { return std::strncpy(name, "a fake card", room), CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    static const std::map<int, int> known = {
        {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
    };
    const auto found = known.find(attribute);
    if (found == known.end()) fail("attribute %d of the device is asked for", int(attribute));
    // CARD_CAPABILITY=75: an older card.
    const char* other = std::getenv("CARD_CAPABILITY");
    const int capability = other ? std::atoi(other) : 90;
    *value = found->second;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = capability / 10;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = capability % 10;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) { return *context = primary(), CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxDestroy(CUcontext) { fail("the primary context is released, not destroyed"); }
CUresult cuCtxGetCurrent(CUcontext* context) { return *context = current, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) {
    if (context && context != primary()) fail("a context that does not exist");
    return current = context, CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
    IN_CONTEXT;
    // Programming guide, "Prohibited and Unhandled Operations": not while any stream of it is captured.
    if (any_capture()) {
        break_captures();
        counts().refused++;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    wait_for_all();
    return CUDA_SUCCESS;
}

// ---- Streams and events ------------------------------------------------------------------------------

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    IN_CONTEXT;
    if (flags != CU_STREAM_NON_BLOCKING) fail("a stream that waits for the legacy stream");
    *stream = reinterpret_cast<CUstream>(make_stream());
    return CUDA_SUCCESS;
}
CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
    if (priority > 0 || priority < -5) fail("a stream of priority %d", priority);
    return cuStreamCreate(stream, flags);
}
CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    IN_CONTEXT;
    *least = 0, *greatest = -5;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
    IN_CONTEXT;
    forget_stream(stream_of(stream));
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
    IN_CONTEXT;
    if (capturing(stream)) {
        stream_of(stream)->capture->broken = true;
        counts().refused++;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    NOT_IN_CAPTURE;
    wait_for_stream(stream);
    return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    IN_CONTEXT;
    return wait_event(stream, *event_of(event));
}
CUresult cuEventCreate(CUevent* event, unsigned flags) {
    IN_CONTEXT;
    auto* made = new Event{};
    made->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    *event = reinterpret_cast<CUevent>(made);
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
    CARD_CALL;
    delete event_of(event);
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
    IN_CONTEXT;
    return record(*event_of(event), stream);
}
CUresult cuEventSynchronize(CUevent event) {
    IN_CONTEXT;
    NOT_IN_CAPTURE;
    return synchronize(*event_of(event));
}
CUresult cuEventElapsedTime(float* milliseconds, CUevent from, CUevent to) {
    IN_CONTEXT;
    const Event &start = *event_of(from), &end = *event_of(to);
    if (!start.timed || !end.timed || !start.recorded || !end.recorded) return CUDA_ERROR_INVALID_HANDLE;
    for (const Event* event : {&start, &end})
        if (event->mark.stream->run < event->mark.position) return CUDA_ERROR_NOT_READY;
    *milliseconds = float(*end.milliseconds - *start.milliseconds);
    return CUDA_SUCCESS;
}

// ---- Memory ------------------------------------------------------------------------------------------

CUresult cuMemGetInfo(size_t* free, size_t* total) {
    IN_CONTEXT;
    *total = TOTAL_BYTES;
    *free = TOTAL_BYTES - usage().now;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice) {
    return *pool = reinterpret_cast<CUmemoryPool>(&the_pool), CUDA_SUCCESS;
}
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void* value) {
    CARD_CALL;
    auto* number = static_cast<uint64_t*>(value);
    switch (attribute) {
        case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: return *number = usage().now, CUDA_SUCCESS;
        case CU_MEMPOOL_ATTR_USED_MEM_HIGH: return *number = usage().peak, CUDA_SUCCESS;
        case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return *number = release_threshold, CUDA_SUCCESS;
        default: fail("attribute %d of the memory pool is asked for", int(attribute));
    }
}
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void* value) {
    CARD_CALL;
    if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) return CUDA_ERROR_INVALID_VALUE;
    std::memcpy(&release_threshold, value, sizeof release_threshold);
    return CUDA_SUCCESS;
}
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }

CUresult cuMemAllocAsync(CUdeviceptr* at, size_t bytes, CUstream stream) {
    IN_CONTEXT;
    if (capturing(stream)) fail("allocates inside a capture, which makes a node of the graph that owns the memory");
    if (bytes == 0) return *at = 0, CUDA_SUCCESS;
    if (usage().now + bytes > TOTAL_BYTES) return CUDA_ERROR_OUT_OF_MEMORY;
    // The place is known at once, but it may be used only behind this point of the stream.
    if (CUresult status = put(stream, {"an allocation", nullptr, nullptr})) return status;
    Stream* owner = stream_of(stream);
    const std::string by = "stream " + std::to_string(owner->number) + " (operation " + std::to_string(owner->put) + ")";
    *at = allocate(bytes, Kind::Device, by, {owner->number, owner->put});
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
    IN_CONTEXT;
    if (at == 0) return CUDA_SUCCESS;
    if (capturing(stream)) fail("frees inside a capture what was allocated outside");
    Work work;
    work.name = "freeing", work.frees = at;
    return put(stream, std::move(work));
}
CUresult cuMemAlloc(CUdeviceptr*, size_t) { fail("cuMemAlloc: the pool is there"); }
CUresult cuMemFree(CUdeviceptr) { fail("cuMemFree: the pool is there"); }
CUresult cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    IN_CONTEXT;
    NOT_IN_CAPTURE;
    // A system with little page-locked memory: ids still find room, parts of weights do not.
    if (std::getenv("CARD_LITTLE_LOCKED") && bytes > (1 << 20)) return CUDA_ERROR_OUT_OF_MEMORY;
    host_clock();
    *at = host<void>(allocate(bytes, Kind::Pinned, "the host", host_moment()));
    return *at ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFreeHost(void* at) {
    IN_CONTEXT;
    NOT_IN_CAPTURE;
    // What still waits to run would read it afterwards: everything runs now, and is compared with what
    // the host had waited for before.
    const Clock clock = host_clock();
    const Moment moment = host_moment();
    run_all();
    release(Address(at), Kind::Pinned, moment, clock);
    return CUDA_SUCCESS;
}
}
