//! The command, run as a person or a script runs it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

mod convert;
mod encode;
mod files;
mod names;
mod requests;
mod tokens;
mod usage;
