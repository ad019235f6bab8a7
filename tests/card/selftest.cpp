// The fake card against programs that are wrong: each must be stopped with the right report, and the same
// program without its mistake must run. Linked with the fake libraries.
#include <cuda.h>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace {

void must(CUresult status) {
    if (status != CUDA_SUCCESS) std::fprintf(stderr, "a call failed with %d\n", int(status)), _exit(3);
}

struct Card {
    CUcontext context;
    CUstream a, b;
    CUevent event;
    CUfunction copy;
    CUdeviceptr x, y;
    static constexpr size_t COUNT = 64, BYTES = 4 * COUNT;
    float values[COUNT] = {};

    Card() {
        must(cuDevicePrimaryCtxRetain(&context, 0));
        must(cuCtxSetCurrent(context));
        must(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
        must(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
        must(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
        CUmodule module;
        must(cuModuleLoadData(&module, "candle's"));
        must(cuModuleGetFunction(&copy, module, "ucopy_f32"));
        must(cuMemAllocAsync(&x, BYTES, a));
        must(cuMemAllocAsync(&y, BYTES, a));
    }
    void upload() { must(cuMemcpyHtoDAsync(x, values, BYTES, a)); }
    CUresult run(CUstream stream, CUdeviceptr from, CUdeviceptr to, size_t count = COUNT) {
        size_t n_dims = 1;
        CUdeviceptr info = 0;
        void* parameters[] = {&count, &n_dims, &info, &from, &to};
        return cuLaunchKernel(copy, 1, 1, 1, 64, 1, 1, 0, stream, parameters, nullptr);
    }
    void order() {
        must(cuEventRecord(event, a));
        must(cuStreamWaitEvent(b, event, 0));
    }
};

using Program = void (*)(Card&, bool wrong);

struct Case {
    const char *name, *report;
    Program program;
};

const Case CASES[] = {
    {"beyond the end", "are not all of one allocation",
     [](Card& card, bool wrong) {
         card.upload();
         must(card.run(card.a, card.x, card.y, wrong ? Card::COUNT + 1 : Card::COUNT));
     }},
    {"before it is written", "nothing has written",
     [](Card& card, bool wrong) {
         if (!wrong) card.upload();
         must(card.run(card.a, card.x, card.y));
     }},
    {"after it is freed", "is freed",
     [](Card& card, bool wrong) {
         card.upload();
         if (wrong) must(cuMemFreeAsync(card.y, card.a));
         must(card.run(card.a, card.x, card.y));
     }},
    {"on another stream without an event", "is not ordered after",
     [](Card& card, bool wrong) {
         card.upload();
         if (!wrong) card.order();
         must(card.run(card.b, card.x, card.y));
     }},
    {"written over while it is read", "is not ordered after",
     [](Card& card, bool wrong) {
         card.upload();
         card.order();
         must(card.run(card.b, card.x, card.y));
         if (!wrong) must(cuStreamSynchronize(card.b));
         card.upload();
     }},
    {"freed while it is read", "is freed",
     [](Card& card, bool wrong) {
         card.upload();
         card.order();
         must(card.run(card.b, card.x, card.y));
         if (!wrong) must(cuStreamSynchronize(card.b));
         must(cuMemFreeAsync(card.x, card.a));
     }},
    {"pinned memory changed too early", "the host changed the source",
     [](Card& card, bool wrong) {
         void* pinned;
         must(cuMemHostAlloc(&pinned, Card::BYTES, 0));
         std::memset(pinned, 0, Card::BYTES);
         must(cuMemcpyHtoDAsync(card.x, pinned, Card::BYTES, card.a));
         if (!wrong) must(cuStreamSynchronize(card.a));
         std::memset(pinned, 1, Card::BYTES);
     }},
    {"waiting inside a capture", "a call failed with 900",
     [](Card& card, bool wrong) {
         must(cuStreamBeginCapture(card.b, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
         if (wrong) must(cuStreamSynchronize(card.b));
         CUgraph graph;
         must(cuStreamEndCapture(card.b, &graph));
     }},
    {"waiting for the context beside a capture", "a call failed with 900",
     [](Card& card, bool wrong) {
         must(cuStreamBeginCapture(card.b, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
         if (wrong) must(cuCtxSynchronize());
         CUgraph graph;
         must(cuStreamEndCapture(card.b, &graph));
     }},
    {"an event from outside in a capture", "a call failed with 905",
     [](Card& card, bool wrong) {
         must(cuEventRecord(card.event, card.a));
         must(cuStreamBeginCapture(card.b, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
         if (wrong) must(cuStreamWaitEvent(card.b, card.event, 0));
         CUgraph graph;
         must(cuStreamEndCapture(card.b, &graph));
     }},
    {"too many threads", "a block of",
     [](Card& card, bool wrong) {
         size_t count = Card::COUNT, n_dims = 1;
         CUdeviceptr info = 0;
         void* parameters[] = {&count, &n_dims, &info, &card.x, &card.y};
         card.upload();
         must(cuLaunchKernel(card.copy, 1, 1, 1, wrong ? 1025 : 64, 1, 1, 0, card.a, parameters, nullptr));
     }},
    {"replay without its graph", "destroyed before its replay",
     [](Card& card, bool wrong) {
         card.upload();
         must(cuStreamSynchronize(card.a));
         must(cuStreamBeginCapture(card.b, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
         must(card.run(card.b, card.x, card.y));
         CUgraph graph;
         CUgraphExec executable;
         must(cuStreamEndCapture(card.b, &graph));
         must(cuGraphInstantiateWithFlags(&executable, graph, 0));
         must(cuGraphLaunch(executable, card.b));
         if (!wrong) must(cuStreamSynchronize(card.b));
         must(cuGraphExecDestroy(executable));
     }},
};

// What a program says before it ends, and whether it ended well.
std::string said(Program program, bool wrong, bool& well) {
    int ends[2];
    if (pipe(ends)) return "no pipe";
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        Card card;
        program(card, wrong);
        must(cuCtxSynchronize());
        _exit(0);
    }
    close(ends[1]);
    std::string text;
    char part[1024];
    for (ssize_t got; (got = read(ends[0], part, sizeof part)) > 0;) text.append(part, size_t(got));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return text;
}

}  // namespace

int main() {
    int failed = 0;
    for (const Case& one : CASES) {
        bool well;
        const std::string right = said(one.program, false, well);
        if (!well) std::printf("FAILED: %s, without the mistake: %s\n", one.name, right.c_str()), ++failed;
        const std::string report = said(one.program, true, well);
        if (well || report.find(one.report) == std::string::npos)
            std::printf("FAILED: %s was not found: %s\n", one.name, report.c_str()), ++failed;
    }
    std::printf("the fake card: %zu kinds of mistakes, %d failed\n", sizeof CASES / sizeof *CASES, failed);
    return failed != 0;
}
