// Streams, events and captured graphs, as far as the driver's entry points see them.
#pragma once
#include <deque>
#include <thread>

#include "card.h"

namespace card {

struct Stream;

// A point in a stream's work.
struct Mark {
    Stream* stream = nullptr;
    uint64_t position = 0;
    Clock clock;
    const void* capture = nullptr;  // recorded while this capture went on
};

struct Event {
    bool timed = false, recorded = false;
    Mark mark;
    std::shared_ptr<double> milliseconds = std::make_shared<double>(0);  // on the card's clock, when reached
};

struct Graph {
    std::vector<Work> nodes;
};

struct Capture {
    CUstreamCaptureMode mode;
    std::thread::id thread;
    bool broken = false;
    Graph graph;
};

struct Operation {
    Work work;
    Clock clock;
    Mark until;  // another stream's work that comes first
};

struct Stream {
    int number;
    Clock clock;
    uint64_t put = 0, run = 0;  // how many operations
    double milliseconds = 0;
    std::deque<Operation> queue;
    std::unique_ptr<Capture> capture;
};

Stream* stream_of(CUstream handle);
Stream* make_stream();
void forget_stream(Stream* stream);
Capture* capture_of_this_thread();  // one that is not relaxed
bool any_capture();
void break_captures();

CUresult record(Event& event, CUstream handle);
CUresult wait_event(CUstream handle, const Event& event);
CUresult synchronize(const Event& event);
void reach(const Mark& mark);  // runs what comes before it; the host has not waited

Clock host_clock();
Moment host_moment();
void host_waited_for(const Clock& clock);

struct Counts {
    uint64_t operations, products, kernels, launches_of_graphs, captures, refused, overlapping;
};
Counts& counts();

}  // namespace card
