//! The command, run as a person or a script runs it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

mod encode;
mod files;
#[cfg(feature = "graph")]
mod graph;
mod names;
mod requests;
mod tokens;
mod usage;
