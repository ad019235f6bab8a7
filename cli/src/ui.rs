//! How the command talks: data on standard output, words for people on standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use sd_conditioner::Error;

/// What a command hands to `main`: its exit code, or the error that ended it.
pub(crate) type Done = anyhow::Result<ExitCode>;

/// Data, with a line break, on standard output.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A number without the digits that only rounding left: 1.1 × 1.1 is 1.21.
pub(crate) fn short(number: f64) -> String {
    if number.abs() < 1e6 {
        let text = format!("{number:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        number.to_string()
    }
}

/// Something that a person should know; the work goes on.
pub(crate) fn warn(text: impl Display) {
    tell("warning: ", &text.to_string());
}

/// What went wrong, on one line.
pub(crate) fn error(text: impl Display) {
    tell("error: ", &text.to_string());
}

/// What was done.
pub(crate) fn info(text: impl Display) {
    tell("", &text.to_string());
}

/// An error and its causes, down to the library's own, which names place and hint itself.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        if cause.is::<Error>() {
            break;
        }
    }
    texts.join(": ")
}

/// Says what ended the command. A reader that closed our output early is no error.
pub(crate) fn exit_code(done: Done) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(failure) => {
            error(describe(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Help and version go to standard output with 0, wrong usage to standard error with 2.
pub(crate) fn usage(usage: &clap::Error) -> ExitCode {
    // Nothing is left to be told when the stream is closed.
    let _ = usage.print();
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn is_closed_output(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
}

/// One line, however many the text has. A closed standard error is nobody to tell.
fn tell(kind: &str, text: &str) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr().lock(), "{kind}{line}");
}
