//! The emphasis grammar of AUTOMATIC1111's web UI and of Forge.
//!
//! Rules: `parse_prompt_attention` in `modules/prompt_parser.py` (A1111) and
//! `backend/text_processing/parsing.py` (Forge). What comes before this stage in those tools is in
//! [`super::comments`], [`super::networks`], [`super::compose`] and [`super::schedule`].

use std::ops::Range;

use super::brackets::{Brackets, Rules};
use super::scan::{self, Kind, Number, Token};
use super::strengths::Precision;
use super::{Note, Piece, python};

/// Which tool of the family reads the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// A1111 1.10 and Forge.
    A1111,
    /// diffusers `examples/community/lpw_stable_diffusion.py`: tight numbers, no `BREAK`.
    LpwSd,
    /// diffusers `examples/community/lpw_stable_diffusion_xl.py`: tight numbers; `BREAK` is cut
    /// out and then encoded as a word.
    LpwSdxl,
}

/// Reads `text`; what `float()` refuses is noted and read as text.
pub(super) fn parse(text: &str, tool: Tool) -> (Vec<Piece>, Vec<Note>) {
    let number = match tool {
        Tool::A1111 => Number::Loose,
        Tool::LpwSd | Tool::LpwSdxl => Number::Tight,
    };
    let mut brackets = Brackets::new(rules(tool));
    for token in scan::tokens(text, number) {
        step(&mut brackets, text, &token, tool);
    }
    brackets.finish()
}

#[expect(clippy::float_cmp, reason = "the reference compares with exactly -1")]
fn rules(tool: Tool) -> Rules {
    let is_break = match tool {
        // `modules/sd_hijack_clip.py` compares with exactly this.
        Tool::A1111 => |text: &str, strength: f64| text == "BREAK" && strength == -1.0,
        Tool::LpwSd | Tool::LpwSdxl => |_: &str, _: f64| false,
    };
    Rules {
        round: 1.1,
        square: 1.0 / 1.1,
        precision: Precision::Double,
        is_break,
        stands_alone: |_| false,
    }
}

fn step(brackets: &mut Brackets, text: &str, token: &Token, tool: Tool) {
    if obeyed(brackets, text, token) {
        return;
    }
    let span = token.span.clone();
    if token.kind != Kind::Text {
        brackets
            .notes
            .push(Note::unbalanced(span.clone(), "closes nothing; it is text"));
    }
    match tool {
        Tool::LpwSd => brackets.push(&text[span.clone()], span),
        Tool::A1111 | Tool::LpwSdxl => push_with_breaks(brackets, text, span),
    }
}

/// Does what an escape or a bracket says; false where the token is text.
fn obeyed(brackets: &mut Brackets, text: &str, token: &Token) -> bool {
    let span = token.span.clone();
    match token.kind {
        Kind::Escape => {
            brackets.push(&text[span.start + 1..span.end], span);
            true
        }
        Kind::OpenRound => {
            brackets.open_round(span);
            true
        }
        Kind::OpenSquare => {
            brackets.open_square(span);
            true
        }
        Kind::Weight => brackets.has_round() && close_weighted(brackets, text, token),
        Kind::CloseRound => brackets.close_round(None),
        Kind::CloseSquare => brackets.close_square(),
        Kind::Text => false,
    }
}

/// `:number)` with a `(` open.
pub(super) fn close_weighted(brackets: &mut Brackets, text: &str, token: &Token) -> bool {
    let number = &text[token.number.clone()];
    let factor = python::float(number);
    if factor.is_none() {
        refuse(brackets, text, token);
    }
    brackets.close_round(factor)
}

/// The reference raises at such a number; here it is text and the bracket counts as a plain one.
pub(super) fn refuse(brackets: &mut Brackets, text: &str, token: &Token) {
    let literal = token.span.start..token.number.end;
    let message = format!(
        "`{}` is not a number; read as text",
        &text[token.number.clone()]
    );
    brackets
        .notes
        .push(Note::reference_error(token.number.clone(), message));
    brackets.push(&text[literal.clone()], literal);
}

/// Appends text cut at the word `BREAK`, which takes the white space around it along.
fn push_with_breaks(brackets: &mut Brackets, text: &str, span: Range<usize>) {
    let mut from = span.start;
    for at in python::find_words(&text[span.clone()], "BREAK") {
        let word = span.start + at..span.start + at + "BREAK".len();
        if word.start < from {
            continue;
        }
        let before = text[from..word.start].trim_end_matches(python::is_space);
        let after = text[word.end..span.end].trim_start_matches(python::is_space);
        brackets.push(before, from..from + before.len());
        let next = span.end - after.len();
        brackets.push_break(from + before.len()..next);
        from = next;
    }
    brackets.push(&text[from..span.end], from..span.end);
}
