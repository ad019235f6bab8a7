//! The scanner that A1111 and its Python descendants share.
//!
//! At each position the first of: an escape, a lone `\`, `(`, `[`, `:number)`, `)`, `]`, a run of
//! other characters, `:`. Rules: the pattern `re_attention` of AUTOMATIC1111's
//! `modules/prompt_parser.py`, and of the copies in diffusers and sd-scripts.

use std::ops::Range;

use super::python;

/// What the scanner saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `\` and the bracket or backslash after it, or a `\` that stands before anything else.
    Escape,
    OpenRound,
    OpenSquare,
    CloseRound,
    CloseSquare,
    /// `:number)`, the number still to be read.
    Weight,
    Text,
}

/// A stretch of the text; `number` is where the number of a [`Kind::Weight`] stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
    pub(super) number: Range<usize>,
}

/// Whether white space may stand around the number of `:number)`.
#[derive(Clone, Copy)]
pub(super) enum Number {
    /// `:1.2)` only, with digits of any script.
    Tight,
    /// `: 1.2 )` too.
    Loose,
    /// `:1.2)` only, with ASCII digits.
    TightAscii,
}

/// Cuts `text` into tokens that cover it without gaps.
pub(super) fn tokens(text: &str, number: Number) -> impl Iterator<Item = Token> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let token = token(text, at, number)?;
        at = token.span.end;
        Some(token)
    })
}

fn token(text: &str, at: usize, number: Number) -> Option<Token> {
    let rest = &text[at..];
    let simple = |kind, len| {
        Some(Token {
            kind,
            span: at..at + len,
            number: at..at,
        })
    };
    match rest.chars().next()? {
        '\\' => simple(Kind::Escape, escape(rest)),
        '(' => simple(Kind::OpenRound, 1),
        '[' => simple(Kind::OpenSquare, 1),
        ')' => simple(Kind::CloseRound, 1),
        ']' => simple(Kind::CloseSquare, 1),
        ':' => weight(rest, at, number).or_else(|| simple(Kind::Text, 1)),
        _ => simple(Kind::Text, rest.find(is_special).unwrap_or(rest.len())),
    }
}

fn is_special(character: char) -> bool {
    matches!(character, '\\' | '(' | ')' | '[' | ']' | ':')
}

/// Bytes of the escape at the start of `rest`.
fn escape(rest: &str) -> usize {
    match rest.as_bytes().get(1) {
        Some(b'(' | b')' | b'[' | b']' | b'\\') => 2,
        _ => 1,
    }
}

/// `:number)` at the start of `rest`, which begins at `at` of the whole text.
fn weight(rest: &str, at: usize, rule: Number) -> Option<Token> {
    let loose = |text: &str| match rule {
        Number::Loose => text.len() - text.trim_start_matches(python::is_space).len(),
        Number::Tight | Number::TightAscii => 0,
    };
    let is_digit = |character: char| match rule {
        Number::TightAscii => character.is_ascii_digit(),
        Number::Loose | Number::Tight => python::decimal(character).is_some(),
    };
    let start = 1 + loose(&rest[1..]);
    let sign = usize::from(rest[start..].starts_with(['+', '-']));
    let digits = rest[start + sign..]
        .find(|character: char| character != '.' && !is_digit(character))
        .filter(|len| *len > 0)?;
    let end = start + sign + digits;
    let close = end + loose(&rest[end..]);
    rest[close..].starts_with(')').then(|| Token {
        kind: Kind::Weight,
        span: at..at + close + 1,
        number: at + start..at + end,
    })
}
