//! The emphasis grammar of stable-diffusion.cpp (`src/core/util.cpp`, `parse_prompt_attention`).
//!
//! A1111's machine in single precision, with these departures: only `\(` is unescaped; a
//! `:number)` without an open `(` vanishes; numbers are read as far as `strtof` reads them; `BREAK`
//! leaves the white space around it to its neighbors and needs no boundary before it when the
//! scanner stops there anyway.

use std::ops::Range;

use super::brackets::{Brackets, Rules};
use super::scan::{self, Kind, Number, Token};
use super::strengths::Precision;
use super::{Note, Piece, a1111};

/// Reads `text`. Strengths are the reference's f32 values, widened.
pub(super) fn parse(text: &str) -> (Vec<Piece>, Vec<Note>) {
    let mut brackets = Brackets::new(rules());
    for token in scan::tokens(text, Number::TightAscii) {
        step(&mut brackets, text, &token);
    }
    brackets.finish()
}

#[expect(clippy::float_cmp, reason = "the reference compares with exactly -1")]
fn rules() -> Rules {
    Rules {
        round: f64::from(1.1_f32),
        square: f64::from(1.0 / 1.1_f32),
        precision: Precision::Single,
        is_break: |text, strength| text == "BREAK" && strength == -1.0,
        stands_alone: |_| false,
    }
}

fn step(brackets: &mut Brackets, text: &str, token: &Token) {
    let span = token.span.clone();
    match token.kind {
        Kind::Escape if &text[span.clone()] == "\\(" => return brackets.push("(", span),
        Kind::OpenRound => return brackets.open_round(span),
        Kind::OpenSquare => return brackets.open_square(span),
        Kind::Weight => return close_weighted(brackets, text, token),
        Kind::CloseRound if brackets.close_round(None) => return,
        Kind::CloseSquare if brackets.close_square() => return,
        Kind::CloseRound | Kind::CloseSquare => {
            brackets
                .notes
                .push(Note::unbalanced(span.clone(), "closes nothing; it is text"));
        }
        Kind::Escape => {}
        Kind::Text => return push_with_breaks(brackets, text, span),
    }
    brackets.push(&text[span.clone()], span);
}

fn close_weighted(brackets: &mut Brackets, text: &str, token: &Token) {
    if !brackets.has_round() {
        let message = "no `(` is open; stable-diffusion.cpp drops this text";
        return brackets
            .notes
            .push(Note::quirk(token.span.clone(), message));
    }
    let factor = strtof(&text[token.number.clone()]);
    if factor.is_none() {
        a1111::refuse(brackets, text, token);
    }
    brackets.close_round(factor);
}

/// The longest number at the start of `text`; `None` where C++'s `std::stof` throws: no digit, or
/// a value outside f32's normal range.
fn strtof(text: &str) -> Option<f64> {
    let second_dot = text
        .match_indices('.')
        .nth(1)
        .map_or(text.len(), |(at, _)| at);
    let number = &text[..second_dot];
    let value: f32 = number.parse().ok()?;
    let is_zero = !number.contains(|character: char| ('1'..='9').contains(&character));
    (value.is_normal() || is_zero).then_some(f64::from(value))
}

/// Appends text, cut at every `BREAK` that no word character follows and that either starts the
/// token or whose `B` the scanner stops at, which it does at every `B`.
fn push_with_breaks(brackets: &mut Brackets, text: &str, span: Range<usize>) {
    let mut from = span.start;
    for (at, word) in text[span.clone()].match_indices("BREAK") {
        let (start, end) = (span.start + at, span.start + at + word.len());
        let next = text.as_bytes().get(end);
        if next.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            continue;
        }
        if from < start {
            brackets.push(&text[from..start], from..start);
        }
        brackets.push_break(start..end);
        from = end;
    }
    if from < span.end {
        brackets.push(&text[from..span.end], from..span.end);
    }
}
