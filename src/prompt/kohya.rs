//! The emphasis grammar of sd-scripts (`gen_img.py`, `parse_prompt_attention`).
//!
//! A1111's scanner, run over a text in which every occurrence of the letters `BREAK` has become
//! `\BREAK\`. That trick has side effects, which are kept: the closing backslash escapes a bracket
//! or backslash right behind it.

use std::ops::Range;

use super::brackets::{Brackets, Rules};
use super::scan::{self, Kind, Number, Token};
use super::strengths::Precision;
use super::{Note, Piece, a1111, python};

const BREAK: &str = "BREAK";

/// Reads `text`.
pub(super) fn parse(text: &str) -> (Vec<Piece>, Vec<Note>) {
    let marked = Marked::of(text);
    let mut brackets = Brackets::new(rules());
    for token in scan::tokens(&marked.text, Number::Tight) {
        step(&mut brackets, &marked.text, &token);
    }
    let (mut pieces, mut notes) = brackets.finish();
    for piece in &mut pieces {
        let (Piece::Text { span, .. } | Piece::Embedding { span, .. } | Piece::Break { span }) =
            piece;
        *span = marked.source_span(span);
    }
    for note in &mut notes {
        note.span = marked.source_span(&note.span);
    }
    (pieces, notes)
}

fn rules() -> Rules {
    let is_break = |text: &str| python::strip(text) == BREAK;
    Rules {
        round: 1.1,
        square: 1.0 / 1.1,
        precision: Precision::Double,
        is_break: |text, _| python::strip(text) == BREAK,
        stands_alone: is_break,
    }
}

fn step(brackets: &mut Brackets, text: &str, token: &Token) {
    let span = token.span.clone();
    match token.kind {
        Kind::Escape => return brackets.push(&text[span.start + 1..span.end], span),
        Kind::OpenRound => return brackets.open_round(span),
        Kind::OpenSquare => return brackets.open_square(span),
        Kind::Weight if brackets.has_round() => {
            a1111::close_weighted(brackets, text, token);
            return;
        }
        Kind::CloseRound if brackets.close_round(None) => return,
        Kind::CloseSquare if brackets.close_square() => return,
        Kind::Weight | Kind::CloseRound | Kind::CloseSquare => {
            brackets
                .notes
                .push(Note::unbalanced(span.clone(), "closes nothing; it is text"));
        }
        Kind::Text => {}
    }
    brackets.push(&text[span.clone()], span);
}

/// The text with `\BREAK\` for `BREAK`.
struct Marked {
    text: String,
    /// Where in `text` each `\BREAK\` starts.
    marks: Vec<usize>,
}

impl Marked {
    fn of(source: &str) -> Marked {
        let breaks = source.match_indices(BREAK).enumerate();
        // Every mark before this one has made the text two bytes longer.
        let marks = breaks.map(|(index, (at, _))| at + 2 * index).collect();
        Marked {
            text: source.replace(BREAK, "\\BREAK\\"),
            marks,
        }
    }

    fn source_span(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.source_offset(span.start);
        start..self.source_offset(span.end).max(start)
    }

    /// The byte of the source that became byte `at`: the backslashes before it are taken off.
    fn source_offset(&self, at: usize) -> usize {
        let opened = self.marks.partition_point(|mark| *mark < at);
        let closed = self
            .marks
            .partition_point(|mark| mark + "\\BREAK\\".len() <= at);
        at - opened - closed
    }
}
