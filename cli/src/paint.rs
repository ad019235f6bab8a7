//! Colors on a terminal, and nowhere else.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal as _};

/// A look of a part of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    /// Start, end and padding.
    Faint,
    /// Headings.
    Bold,
    /// A strength above 1.
    Strong,
    /// A strength below 1.
    Weak,
    /// Notes, cuts, breaks.
    Notice,
    /// A textual-inversion embedding.
    Vector,
}

impl Look {
    /// The parameter of the terminal's "select graphic rendition" (ECMA-48).
    const fn code(self) -> Option<&'static str> {
        match self {
            Look::Plain => None,
            Look::Faint => Some("2"),
            Look::Bold => Some("1"),
            Look::Strong => Some("31"),
            Look::Weak => Some("34"),
            Look::Notice => Some("33"),
            Look::Vector => Some("32"),
        }
    }

    /// The look of a strength.
    pub(crate) fn of_strength(strength: f64) -> Look {
        if strength > 1.0 {
            Look::Strong
        } else if strength < 1.0 {
            Look::Weak
        } else {
            Look::Plain
        }
    }
}

/// Whether there are colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    On,
    Off,
}

impl Paint {
    /// Colors if standard output is a terminal that knows them, and `NO_COLOR` is not set.
    #[expect(
        clippy::disallowed_methods,
        reason = "the command is the one place that reads the environment"
    )]
    pub(crate) fn for_stdout() -> Paint {
        let [no_color, term] = ["NO_COLOR", "TERM"].map(std::env::var_os);
        Paint::chosen(
            io::stdout().is_terminal(),
            no_color.as_deref(),
            term.as_deref(),
        )
    }

    /// `NO_COLOR` counts where it is not empty (<https://no-color.org>).
    fn chosen(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Paint {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        let dumb = term.is_some_and(|name| name == "dumb");
        if terminal && !refused && !dumb {
            Paint::On
        } else {
            Paint::Off
        }
    }

    /// The text in this look.
    pub(crate) fn text(self, look: Look, text: impl Display) -> String {
        match (self, look.code()) {
            (Paint::On, Some(code)) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            (Paint::On, None) | (Paint::Off, _) => text.to_string(),
        }
    }
}

/// Bytes of one of our own looks, or its end, that a text starts with.
pub(crate) fn length_of_look(text: &str) -> usize {
    let codes = ["0", "1", "2", "31", "32", "33", "34"];
    let rest = text.strip_prefix("\u{1b}[");
    let look = codes.into_iter().find(|code| {
        let behind = rest.and_then(|rest| rest.strip_prefix(code));
        behind.is_some_and(|behind| behind.starts_with('m'))
    });
    look.map_or(0, |code| "\u{1b}[m".len() + code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terminals_that_do_not_refuse_have_colors() {
        let some = |text: &'static str| Some(OsStr::new(text));
        let cases = [
            ((true, None, some("xterm")), Paint::On),
            ((true, some(""), None), Paint::On),
            ((true, some("1"), some("xterm")), Paint::Off),
            ((true, some("0"), None), Paint::Off),
            ((true, None, some("dumb")), Paint::Off),
            ((false, None, some("xterm")), Paint::Off),
        ];
        for ((terminal, no_color, term), want) in cases {
            assert_eq!(Paint::chosen(terminal, no_color, term), want);
        }
    }

    #[test]
    fn looks() {
        assert_eq!(Paint::Off.text(Look::Strong, 1.5), "1.5");
        assert_eq!(Paint::On.text(Look::Strong, 1.5), "\u{1b}[31m1.5\u{1b}[0m");
        assert_eq!(Paint::On.text(Look::Plain, "a"), "a");
        assert_eq!(Look::of_strength(0.9), Look::Weak);
        assert_eq!(Look::of_strength(f64::NAN), Look::Plain);
    }
}
