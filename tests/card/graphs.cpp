// Capture and replay: what is put on a captured stream is kept and does not run.
#include "streams.h"

using namespace card;

namespace {

struct Executable {
    std::shared_ptr<Graph> graph;
    bool destroyed = false;
    uint64_t waiting = 0;  // launches that have not run
};

}  // namespace

extern "C" {

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    CARD_CALL;
    Stream* stream = stream_of(handle);
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capture = std::make_unique<Capture>();
    stream->capture->mode = mode, stream->capture->thread = std::this_thread::get_id();
    counts().captures++;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    CARD_CALL;
    Stream* stream = stream_of(handle);
    *graph = nullptr;
    if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    if (stream->capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && stream->capture->thread != std::this_thread::get_id())
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    const auto capture = std::move(stream->capture);
    if (capture->broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *graph = reinterpret_cast<CUgraph>(new std::shared_ptr<Graph>(new Graph(std::move(capture->graph))));
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    CARD_CALL;
    const Capture* capture = stream_of(handle)->capture.get();
    *status = !capture ? CU_STREAM_CAPTURE_STATUS_NONE
                       : capture->broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    CARD_CALL;
    auto* made = new std::shared_ptr<Executable>(new Executable);
    (*made)->graph = *reinterpret_cast<std::shared_ptr<Graph>*>(graph);
    *executable = reinterpret_cast<CUgraphExec>(made);
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec, CUstream stream) {
    CARD_CALL;
    return capturing(stream) ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

// Its nodes follow each other, each with the memory that it touches.
CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
    CARD_CALL;
    if (capturing(stream)) fail("a graph inside a capture");
    const auto executable = *reinterpret_cast<std::shared_ptr<Executable>*>(handle);
    counts().launches_of_graphs++;
    executable->waiting++;
    for (const Work& node : executable->graph->nodes) {
        Work work = node;
        work.name += ", replayed";
        if (CUresult status = put(stream, std::move(work))) return status;
    }
    return put(stream, {"the end of a replay", nullptr, [executable] {
                            if (executable->destroyed) fail("the graph was destroyed before its replay was over");
                            executable->waiting--;
                        }});
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
    CARD_CALL;
    auto* executable = reinterpret_cast<std::shared_ptr<Executable>*>(handle);
    (*executable)->destroyed = true;
    delete executable;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph handle) {
    CARD_CALL;
    delete reinterpret_cast<std::shared_ptr<Graph>*>(handle);
    return CUDA_SUCCESS;
}
}
