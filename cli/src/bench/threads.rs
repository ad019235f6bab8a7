//! How many threads the CPU's products use.
//!
//! candle splits a product into as many parts as the variable `RAYON_NUM_THREADS` says (or one for
//! each core), and rayon's own pool reads the same variable; nothing in a running process changes
//! both. So the bench starts itself again with the variable set.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::builder::TypedValueParser;
use sd_conditioner::candle_core::utils::get_num_threads;

const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Where the work is done.
pub(super) enum Settled {
    /// In this process, with so many threads.
    Here(usize),
    /// In another one, which has ended.
    Elsewhere(ExitCode),
}

pub(super) fn parser() -> impl TypedValueParser<Value = usize> {
    let count = clap::value_parser!(u32).range(1..=1024);
    count.map(|count| count as usize)
}

/// Stays here if the variable is as it should be already.
pub(super) fn settle(wanted: Option<usize>) -> anyhow::Result<Settled> {
    let wanted = wanted.unwrap_or_else(get_num_threads);
    if variable().as_deref() == Some(wanted.to_string().as_str()) {
        return Ok(Settled::Here(wanted));
    }
    let own = std::env::current_exe().context("this program's own place")?;
    let mut again = Command::new(own);
    again.args(std::env::args_os().skip(1));
    again.env(VARIABLE, wanted.to_string());
    again.env_remove("CANDLE_NUM_THREADS");
    start(again).map(Settled::Elsewhere)
}

/// In the place of this process, so that a signal reaches the one that works.
#[cfg(unix)]
fn start(mut again: Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(again.exec()).context("starting the bench with its threads")
}

#[cfg(not(unix))]
fn start(mut again: Command) -> anyhow::Result<ExitCode> {
    let status = again
        .status()
        .context("starting the bench with its threads")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command is the one place that reads the environment"
)]
fn variable() -> Option<String> {
    std::env::var(VARIABLE).ok()
}
