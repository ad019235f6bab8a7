// The card's memory: every allocation lies between pages that nobody may touch, is filled with NaNs, and
// knows for each of its bytes who wrote it last and who has read it since.
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include <sys/mman.h>
#include <unistd.h>

#include "card.h"

namespace card {

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t ALIGNMENT = 256;  // what CUDA promises; nothing here is aligned better
constexpr size_t SPACE = size_t(1) << 42;
constexpr unsigned char POISON = 0xff;  // a NaN in f32, f16 and bf16, an id that no table has
constexpr unsigned char FENCE = 0xa5;

struct Reader {
    Moment moment;
    std::string by;
};

// Neighbouring bytes with one history.
struct Cell {
    size_t end;
    Moment written;
    std::string by;
    bool has_value;
    std::vector<Reader> readers;
};

struct Allocation {
    Address at, mapped;
    size_t bytes, mapped_bytes;
    Kind kind;
    bool live = true;
    std::string made_by, freed_by;
    std::map<size_t, Cell> cells;
};

std::map<Address, Allocation>& all() {
    static auto* map = new std::map<Address, Allocation>;
    return *map;
}

unsigned char* space() {
    static unsigned char* start = [] {
        void* got = mmap(nullptr, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED) fail("no address space");
        return static_cast<unsigned char*>(got);
    }();
    return start;
}
size_t used_space = PAGE;

Allocation* around(Address at) {
    auto after = all().upper_bound(at);
    if (after == all().begin()) return nullptr;
    return &std::prev(after)->second;
}

std::string where(Address at) {
    const Allocation* near = around(at);
    char text[512];
    if (!near) std::snprintf(text, sizeof text, "address %#llx, below all allocations", at);
    else
        std::snprintf(text, sizeof text, "byte %lld of %zu of what %s allocated%s%s", (long long)(at - near->at), near->bytes,
                      near->made_by.c_str(), near->live ? "" : ", freed by ", near->freed_by.c_str());
    return text;
}

void on_fault(int, siginfo_t* info, void*) {
    const auto at = Address(info->si_addr);
    const bool ours = at >= Address(space()) && at < Address(space()) + SPACE;
    if (ours) fail("touches %s", where(at).c_str());
    std::fprintf(stderr, "fake card: a fault at %p that is none of the card's\n", info->si_addr);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

void check_fence(const Allocation& one) {
    const auto wrong = [&](Address from, Address to) {
        for (Address at = from; at < to; ++at)
            if (*host<unsigned char>(at) != FENCE) fail("something wrote to %s", where(at).c_str());
    };
    wrong(one.mapped, one.at);
    wrong(one.at + one.bytes, one.mapped + one.mapped_bytes);
}

// Makes `at` a border between cells.
void split(std::map<size_t, Cell>& cells, size_t at) {
    auto cell = std::prev(cells.upper_bound(at));
    if (cell->first == at || cell->second.end <= at) return;
    Cell rest = cell->second;
    cell->second.end = at;
    cells.emplace(at, std::move(rest));
}

[[noreturn]] void race(const Allocation& one, size_t at, const char* what, const char* did, const std::string& other) {
    fail("%s at %s is not ordered after %s, which %s it: no event, stream or wait of the host is between them", what,
         where(one.at + at).c_str(), other.c_str(), did);
}

void check_cell(const Allocation& one, size_t at, const Cell& cell, const Access& access, const Clock& clock) {
    if (!before(cell.written, clock)) race(one, at, access.what, "wrote", cell.by);
    if (!access.writes) {
        if (!cell.has_value) fail("%s: nothing has written %s yet", access.what, where(one.at + at).c_str());
        return;
    }
    for (const Reader& reader : cell.readers)
        if (!before(reader.moment, clock)) race(one, at, access.what, "reads", reader.by);
}

void remember_reader(Cell& cell, const Moment& moment) {
    for (Reader& reader : cell.readers)
        if (reader.moment.stream == moment.stream) {
            reader.moment = moment, reader.by = running();
            return;
        }
    cell.readers.push_back({moment, running()});
}

}  // namespace

void fail(const char* format, ...) {
    char text[4096];
    va_list list;
    va_start(list, format);
    std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    std::fprintf(stderr, "\nfake card: %s: %s\n", running(), text);
    std::fflush(stderr);
    std::abort();
}

Usage& usage() {
    static Usage value{};
    return value;
}

Address allocate(size_t bytes, Kind kind, const std::string& by, Moment moment) {
    static const bool handled = [] {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        return sigaction(SIGSEGV, &action, nullptr) == 0;
    }();
    (void)handled;
    const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    // The end is at a page's end as far as alignment allows; one more unit keeps the start off the page's.
    const size_t mapped = (rounded + ALIGNMENT + PAGE - 1) / PAGE * PAGE;
    if (used_space + mapped + PAGE > SPACE) return 0;
    unsigned char* start = space() + used_space;
    used_space += mapped + PAGE;
    if (mprotect(start, mapped, PROT_READ | PROT_WRITE) != 0) return 0;
    Allocation one{};
    one.mapped = Address(start), one.mapped_bytes = mapped;
    one.at = one.mapped + mapped - rounded;
    one.bytes = bytes, one.kind = kind, one.made_by = by;
    std::memset(start, FENCE, mapped);
    std::memset(host<void>(one.at), POISON, bytes);
    one.cells[0] = {bytes ? bytes : 1, moment, by, kind == Kind::Pinned, {}};
    const Address at = one.at;
    all()[at] = std::move(one);
    if (kind == Kind::Device) {
        usage().now += bytes;
        usage().peak = std::max(usage().peak, usage().now);
    }
    return at;
}

void touch(const Access& access, const Moment& moment, const Clock& clock) {
    if (access.bytes == 0) return;
    Allocation* one = around(access.at);
    if (!one || access.at + access.bytes > one->at + one->bytes)
        fail("%s: %zu bytes from %s on are not all of one allocation", access.what, access.bytes, where(access.at).c_str());
    if (!one->live) fail("%s: %s is freed", access.what, where(access.at).c_str());
    if (access.at % access.align) fail("%s: %s is not aligned to %zu bytes", access.what, where(access.at).c_str(), access.align);
    const size_t from = access.at - one->at, to = from + access.bytes;
    split(one->cells, from);
    if (to < one->bytes) split(one->cells, to);
    const auto first = one->cells.find(from), last = one->cells.lower_bound(to);
    for (auto cell = first; cell != last; ++cell) {
        check_cell(*one, cell->first, cell->second, access, clock);
        if (!access.writes) remember_reader(cell->second, moment);
    }
    if (!access.writes) return;
    one->cells.erase(first, last);
    one->cells[from] = {to, moment, running(), true, {}};
}

void release(Address at, Kind kind, const Moment& moment, const Clock& clock) {
    const auto found = all().find(at);
    if (found == all().end() || found->second.kind != kind) fail("frees %s, which is no allocation", where(at).c_str());
    Allocation& one = found->second;
    if (!one.live) fail("frees %s again", where(at).c_str());
    touch({"freeing", at, one.bytes, true}, moment, clock);
    check_fence(one);
    one.live = false, one.freed_by = running();
    one.cells.clear();
    madvise(host<void>(one.mapped), one.mapped_bytes, MADV_DONTNEED);
    mprotect(host<void>(one.mapped), one.mapped_bytes, PROT_NONE);
    if (kind == Kind::Device) usage().now -= one.bytes;
}

bool is_pinned(const void* at, size_t bytes) {
    const Allocation* one = around(Address(at));
    return one && one->kind == Kind::Pinned && Address(at) + bytes <= one->at + one->bytes;
}

bool is_device(Address at) {
    const Allocation* one = around(at);
    return one && one->kind == Kind::Device && at < one->at + std::max<size_t>(one->bytes, 1);
}

void check_fences() {
    for (const auto& [at, one] : all())
        if (one.live) check_fence(one);
}

}  // namespace card
