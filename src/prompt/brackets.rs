//! The bracket machine that A1111 and its descendants share.
//!
//! Their scanners differ (see [`super::a1111`], [`super::lpw`], [`super::kohya`],
//! [`super::sdcpp`]); what brackets do is the same everywhere: an opener remembers how many
//! fragments there are, a closer multiplies all fragments from there on. Brackets of the two kinds
//! therefore may cross. Rules: `modules/prompt_parser.py` of AUTOMATIC1111's web UI.

use std::ops::Range;

use super::strengths::{Precision, Strengths};
use super::{Note, Piece, Strength};

/// How a dialect computes and what it makes of fragments.
pub(super) struct Rules {
    /// What `(` and `)` multiply with.
    pub(super) round: f64,
    /// What `[` and `]` multiply with.
    pub(super) square: f64,
    /// The precision of the reference.
    pub(super) precision: Precision,
    /// Which final fragments begin a new window.
    pub(super) is_break: fn(&str, f64) -> bool,
    /// Which fragments are never joined to a neighbor.
    pub(super) stands_alone: fn(&str) -> bool,
}

/// One `[text, weight]` of the reference; its strength is kept in [`Strengths`].
struct Fragment {
    text: String,
    span: Range<usize>,
}

/// An opener that waits for its closer.
struct Opener {
    /// Fragments before it.
    fragments: usize,
    span: Range<usize>,
}

/// The fragments so far and the brackets that are open.
pub(super) struct Brackets {
    rules: Rules,
    fragments: Vec<Fragment>,
    strengths: Strengths,
    round: Vec<Opener>,
    square: Vec<Opener>,
    pub(super) notes: Vec<Note>,
}

impl Brackets {
    pub(super) fn new(rules: Rules) -> Brackets {
        let strengths = Strengths::new(rules.precision);
        let (fragments, notes) = (Vec::new(), Vec::new());
        Brackets {
            rules,
            fragments,
            strengths,
            round: Vec::new(),
            square: Vec::new(),
            notes,
        }
    }

    /// Appends text at strength 1.
    pub(super) fn push(&mut self, text: &str, span: Range<usize>) {
        self.fragments.push(Fragment {
            text: text.to_owned(),
            span,
        });
        self.strengths.push(1.0);
    }

    /// Appends the pseudo fragment of a forced break, whose strength starts at -1.
    pub(super) fn push_break(&mut self, span: Range<usize>) {
        self.fragments.push(Fragment {
            text: "BREAK".to_owned(),
            span,
        });
        self.strengths.push(-1.0);
    }

    pub(super) fn open_round(&mut self, span: Range<usize>) {
        self.round.push(Opener {
            fragments: self.fragments.len(),
            span,
        });
    }

    pub(super) fn open_square(&mut self, span: Range<usize>) {
        self.square.push(Opener {
            fragments: self.fragments.len(),
            span,
        });
    }

    pub(super) fn has_round(&self) -> bool {
        !self.round.is_empty()
    }

    /// Closes the last `(`, multiplying with `factor` or with the dialect's own.
    pub(super) fn close_round(&mut self, factor: Option<f64>) -> bool {
        let opener = self.round.pop();
        if let Some(opener) = &opener {
            self.strengths
                .multiply_from(opener.fragments, factor.unwrap_or(self.rules.round));
        }
        opener.is_some()
    }

    /// Closes the last `[`.
    pub(super) fn close_square(&mut self) -> bool {
        let opener = self.square.pop();
        if let Some(opener) = &opener {
            self.strengths
                .multiply_from(opener.fragments, self.rules.square);
        }
        opener.is_some()
    }

    /// Closes what is open, joins neighbors of equal strength.
    pub(super) fn finish(mut self) -> (Vec<Piece>, Vec<Note>) {
        self.close_the_rest();
        if self.fragments.is_empty() {
            self.push("", 0..0);
        }
        let pieces = self.join();
        let pieces = pieces
            .into_iter()
            .map(|(fragment, value)| self.piece(fragment, value));
        let pieces = pieces.collect::<Vec<_>>();
        (pieces, self.notes)
    }

    /// The reference applies openers from first to last, round ones before square ones.
    fn close_the_rest(&mut self) {
        let round = std::mem::take(&mut self.round);
        let square = std::mem::take(&mut self.square);
        let round = round.into_iter().map(|opener| (opener, self.rules.round));
        let square = square.into_iter().map(|opener| (opener, self.rules.square));
        for (opener, factor) in round.chain(square) {
            self.strengths.multiply_from(opener.fragments, factor);
            let message = "never closed; it reaches to the end of the prompt";
            self.notes.push(Note::unbalanced(opener.span, message));
        }
    }

    fn join(&mut self) -> Vec<(Fragment, f64)> {
        let alone = self.rules.stands_alone;
        let mut joined: Vec<(Fragment, f64)> = Vec::new();
        let fragments = std::mem::take(&mut self.fragments);
        for (fragment, strength) in fragments.into_iter().zip(self.strengths.all()) {
            match joined.last_mut() {
                #[expect(
                    clippy::float_cmp,
                    reason = "the references join exactly equal weights"
                )]
                Some((last, same))
                    if *same == strength && !alone(&last.text) && !alone(&fragment.text) =>
                {
                    last.text.push_str(&fragment.text);
                    last.span.end = fragment.span.end;
                }
                _ => joined.push((fragment, strength)),
            }
        }
        joined
    }

    fn piece(&mut self, fragment: Fragment, value: f64) -> Piece {
        let Fragment { text, span } = fragment;
        if (self.rules.is_break)(&text, value) {
            return Piece::Break { span };
        }
        let strength = Strength::new(value);
        if text == "BREAK" && !strength.is_neutral() {
            let message = format!("no new window: the word `break` is encoded with {value}");
            self.notes.push(Note::quirk(span.clone(), message));
        } else {
            self.notes.extend(Note::about_strength(strength, &span));
        }
        Piece::Text {
            text,
            strength,
            span,
        }
    }
}
