//! How the command talks: data on standard output, words for people on standard error.

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use sd_conditioner::Error;
use unicode_width::UnicodeWidthStr as _;

use crate::paint;

/// What a command hands to `main`: its exit code, or the error that ended it.
pub(crate) type Done = anyhow::Result<ExitCode>;

/// Data, with a line break, on standard output.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    put(&escaped(&text.to_string(), |_| 0))
}

/// The same, in colors.
pub(crate) fn print_painted(text: impl Display) -> io::Result<()> {
    put(&escaped(&text.to_string(), paint::length_of_look))
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// The text without what a terminal would act on, but for line breaks: prompts, keys and names of files
/// come from anywhere. JSON reads these escapes, too.
pub(crate) fn harmless(text: &str) -> String {
    escaped(text, |_| 0)
}

/// `kept` says how many bytes at the start of a text stay as they are.
fn escaped(text: &str, kept: impl Fn(&str) -> usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|sign: char| sign.is_control() && sign != '\n') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (own, behind) = from.split_at(kept(from));
        out.push_str(own);
        rest = behind;
        if own.is_empty() {
            let sign = behind.chars().next().unwrap_or_default();
            rest = &behind[sign.len_utf8()..];
            match sign {
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                // A text takes everything.
                other => {
                    let _ = write!(out, "\\u{:04x}", u32::from(other));
                }
            }
        }
    }
    out + rest
}

/// How many columns of a terminal a text takes: two for each ideograph and most emoji, none for joiners.
pub(crate) fn columns(text: &str) -> usize {
    harmless(text).width()
}

/// The text, followed by spaces up to a number of columns.
pub(crate) fn padded(text: &str, to: usize) -> String {
    let missing = to.saturating_sub(columns(text));
    format!("{text}{}", " ".repeat(missing))
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
    let line = harmless(&lines.collect::<Vec<_>>().join(" "));
    let _ = writeln!(io::stderr().lock(), "{kind}{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::{Look, Paint};

    #[test]
    fn columns_are_counted_as_terminals_do() {
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        let cases = [
            ("", 0),
            ("abc", 3),
            ("\u{732b}a", 3),
            ("e\u{301}", 1),
            (family, 2),
            ("\u{1b}", 6),
        ];
        for (text, want) in cases {
            assert_eq!(columns(text), want, "{text:?}");
            assert_eq!(columns(&padded(text, 8)), 8, "{text:?}");
        }
        assert_eq!(padded("abc", 2), "abc");
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let cases = [
            ("a cat\nand a 猫", "a cat\nand a 猫"),
            ("\u{1b}[2Ja", "\\u001b[2Ja"),
            ("a\r\tb\u{7f}", "a\\r\\tb\\u007f"),
            ("\u{9b}31m\0", "\\u009b31m\\u0000"),
            ("\u{1b}", "\\u001b"),
        ];
        for (text, want) in cases {
            assert_eq!(harmless(text), want);
        }
        let line = format!("{} \u{1b}]0;x\u{7}", Paint::On.text(Look::Bold, "a"));
        let want = "\u{1b}[1ma\u{1b}[0m \\u001b]0;x\\u0007";
        assert_eq!(escaped(&line, paint::length_of_look), want);
    }
}
