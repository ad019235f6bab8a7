// Copies and fills, with the host's side of them: what a pageable and a pinned source mean.
#include <cstring>

#include "streams.h"

using namespace card;

namespace {

uint64_t sum_of(const void* at, size_t bytes) {
    uint64_t sum = 1469598103934665603u;
    for (size_t index = 0; index < bytes; ++index) sum = (sum ^ static_cast<const unsigned char*>(at)[index]) * 1099511628211u;
    return sum;
}

// The card reads pinned memory when the copy runs, so until then the host must leave it as it is.
CUresult upload_pinned(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    const uint64_t sum = sum_of(from, bytes);
    return put(stream, {"an upload from pinned memory",
                        [=] {
                            return std::vector<Access>{{"its source", Address(from), bytes, false}, {"its target", to, bytes, true}};
                        },
                        [=] {
                            if (sum_of(from, bytes) != sum) fail("the host changed the source before it was read");
                            std::memcpy(host<void>(to), from, bytes);
                        }});
}

}  // namespace

extern "C" {

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    CARD_CALL;
    if (bytes == 0) return CUDA_SUCCESS;
    if (is_pinned(from, bytes)) {
        if (capturing(stream)) fail("an upload inside a capture reads its source at every replay");
        return upload_pinned(to, from, bytes, stream);
    }
    if (capturing(stream)) fail("an upload from pageable memory inside a capture reads it at every replay");
    // Pageable memory is copied to a place of the driver's before the call returns.
    const auto* start = static_cast<const unsigned char*>(from);
    auto kept = std::make_shared<std::vector<unsigned char>>(start, start + bytes);
    return put(stream, {"an upload", [=] { return std::vector<Access>{{"its target", to, bytes, true}}; },
                        [=] { std::memcpy(host<void>(to), kept->data(), bytes); }});
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    CARD_CALL;
    if (bytes == 0) return CUDA_SUCCESS;
    if (capturing(stream)) fail("a download inside a capture");
    const bool pinned = is_pinned(to, bytes);
    const CUresult status = put(stream, {"a download",
                                         [=] {
                                             std::vector<Access> all{{"its source", from, bytes, false}};
                                             if (pinned) all.push_back({"its target", Address(to), bytes, true});
                                             return all;
                                         },
                                         [=] { std::memcpy(to, host<void>(from), bytes); }});
    // A copy to pageable memory returns when it is through.
    if (status == CUDA_SUCCESS && !pinned) wait_for_stream(stream);
    return status;
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    CARD_CALL;
    if (bytes == 0) return CUDA_SUCCESS;
    if (to < from + bytes && from < to + bytes) fail("a copy on the card whose source and target overlap");
    return put(stream, {"a copy on the card",
                        [=] {
                            return std::vector<Access>{{"its source", from, bytes, false}, {"its target", to, bytes, true}};
                        },
                        [=] { std::memcpy(host<void>(to), host<void>(from), bytes); }});
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
    return cuMemcpyDtoDAsync(to, from, bytes, stream);
}

CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t bytes, CUstream stream) {
    CARD_CALL;
    if (bytes == 0) return CUDA_SUCCESS;
    return put(stream, {"a fill", [=] { return std::vector<Access>{{"its target", at, bytes, true}}; },
                        [=] { std::memset(host<void>(at), value, bytes); }});
}
}
