//! The handler of illegal instructions.

use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;
use std::sync::Once;

use libc::{SA_SIGINFO, SIG_DFL, SIGILL, c_int, c_void, sigaction, siginfo_t, ucontext_t};

use super::instruction::Instruction;
use super::registers::Registers;

/// Most bytes of an instruction.
const LONGEST: usize = 15;

thread_local! {
    static REGISTERS: UnsafeCell<Registers> = const { UnsafeCell::new(Registers::UNCONFIGURED) };
}

/// General registers in the order of their numbers.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Handles them from now on, in all threads.
pub(super) fn handle() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an action of zeros is one without any flag or mask.
        let mut action: sigaction = unsafe { zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = SA_SIGINFO;
        // SAFETY: the handler is one with three arguments, as the flag says.
        let failed = unsafe { sigaction(SIGILL, &raw const action, null_mut()) };
        assert_eq!(failed, 0, "the signal can be handled");
    });
}

/// Does what the instruction would have done and goes on behind it; what is none of the unit's, or not
/// allowed, ends the process as it always does.
unsafe extern "C" fn handler(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let context = &mut *context.cast::<ucontext_t>();
    let general = &mut context.uc_mcontext.gregs;
    let place = general[libc::REG_RIP as usize];
    let mut code = MaybeUninit::<[u8; LONGEST]>::uninit();
    code.as_mut_ptr()
        .copy_from_nonoverlapping(place as *const [u8; LONGEST], 1);
    let code = code.assume_init();
    let read = Instruction::read(&code, |number| {
        general[GENERAL[usize::from(number)] as usize] as usize
    });
    if let Some((instruction, length)) = read {
        // The code that was interrupted is the unit's instruction, not somebody else with the registers.
        let done = REGISTERS.with(|registers| instruction.run(&mut *registers.get()));
        if done {
            general[libc::REG_RIP as usize] = place + length as i64;
            return;
        }
    }
    libc::signal(SIGILL, SIG_DFL);
}
