//! The one integration binary; modules in the order of the flow.
#![expect(
    clippy::print_stdout,
    reason = "shown by --nocapture: the largest errors seen"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod conditioning;
#[cfg(feature = "graph")]
mod graph;
mod hub;
mod kernels;
mod loras;
mod prompt;
mod storage;
mod tidy;
mod tokens;
mod weights;
mod windows;
