//! The matrix unit in software, for tests on machines without one: its instructions are illegal there,
//! and the handler of that signal does what they would have done. So what is tested is the code that
//! runs on the unit itself, instruction by instruction.
//!
//! Instructions and their bytes: Intel's "Intel 64 and IA-32 Architectures Software Developer's Manual",
//! volume 2.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a register's bits are an address, whatever type they have"
)]

mod instruction;
mod registers;
mod signal;

/// From now on this process has a unit, if it has the vector instructions that go with it.
pub(super) fn begin() -> bool {
    let vectors = super::unit::vectors();
    if vectors {
        signal::handle();
    }
    vectors
}
