//! The command, run as a person or a script runs it.

mod support;

mod encode;
mod files;
mod names;
mod requests;
mod tokens;
mod usage;
