// From one stack to another and back: a few instructions where we know them, `ucontext` elsewhere (which
// asks the kernel each time).
#pragma once
#include <cstddef>

namespace emulator {

#if defined(__x86_64__)

// Where a stack was left.
struct Context {
    void* top;
};

// What a called function must keep lies on the stack that is left.
asm(R"(
    .text
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, . - emulator_switch
)");
extern "C" void emulator_switch(void** left, void* entered) __attribute__((visibility("hidden")));

inline void go(Context& from, Context& to) { emulator_switch(&from.top, to.top); }

inline void begin(Context& context, char* stack, size_t bytes, void (*body)()) {
    auto** end = reinterpret_cast<void**>((reinterpret_cast<size_t>(stack) + bytes) / 16 * 16);
    end[-2] = reinterpret_cast<void*>(body);
    context.top = end - 8;  // six registers below the address that `ret` takes
}

#else

}  // namespace emulator
#include <ucontext.h>
namespace emulator {

using Context = ucontext_t;

inline void go(Context& from, Context& to) { swapcontext(&from, &to); }

inline void begin(Context& context, char* stack, size_t bytes, void (*body)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
}

#endif

}  // namespace emulator
