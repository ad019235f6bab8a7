//! The command, run as a person or a script runs it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

mod bench;
mod bulk;
mod changed;
mod compare;
mod convert;
mod embeddings;
mod encode;
mod explain;
mod files;
mod finite;
mod formats;
#[cfg(feature = "graph")]
mod graph;
mod inputs;
mod killed;
mod kinds;
mod loras;
mod manner;
mod mapped;
mod names;
mod notes;
mod replaced;
mod requests;
mod schedules;
mod threads;
mod tokens;
mod usage;
