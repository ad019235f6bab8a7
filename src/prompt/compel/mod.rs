//! compel's grammar, which InvokeAI uses, too: `word++`, `(some words)1.3`, blends, conjunctions.
//!
//! Rules: `compel/prompt_parser.py` (2.5.1) and what pyparsing 3 makes of it. The parts of a
//! [`Conjunction`] are encoded one by one; a [`Part::Blend`] is a weighted sum of its prompts.

use std::ops::Range;

use super::{Note, Piece};
use characters::Characters;

mod characters;
mod flatten;
mod grammar;
mod options;
mod swap_options;
mod top;

pub use swap_options::SwapOptions;

/// A whole prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conjunction {
    /// The parts with their weights. Empty when nothing but empty brackets was written; the
    /// reference cannot encode that.
    pub parts: Vec<(Part, f64)>,
    /// The `LoRA`s that are asked for, in order.
    pub loras: Vec<Lora>,
    /// The swaps, in order. The parts hold their originals, which is all that is encoded.
    pub swaps: Vec<Swap>,
}

impl Conjunction {
    /// All pieces of all parts in order: for a single flat part, its pieces.
    pub fn pieces(&self) -> Vec<Piece> {
        let pieces = self.parts.iter().flat_map(|(part, _)| match part {
            Part::Flat(pieces) => pieces.clone(),
            Part::Blend { prompts, .. } => prompts.concat(),
        });
        pieces.collect()
    }

    /// The pieces of the only part, if there is just one and it is no blend: then nothing but these
    /// has to be encoded.
    pub fn flat(&self) -> Option<&[Piece]> {
        match self.parts.as_slice() {
            [(Part::Flat(pieces), _)] => Some(pieces),
            _ => None,
        }
    }
}

/// One part of a conjunction.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// One text after the other.
    Flat(Vec<Piece>),
    /// `("a", "b").blend(0.3, 0.7)`.
    Blend {
        /// The prompts to encode.
        prompts: Vec<Vec<Piece>>,
        /// One weight for each.
        weights: Vec<f64>,
        /// Whether the weights are divided by their sum.
        normalize: bool,
    },
}

/// A LoRA: `withLora(name, 0.5)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// Where it stands in the source.
    pub span: Range<usize>,
}

/// `cat.swap(dog)`: attention control from one text to another. The text encoder only ever sees the
/// original; the edited text is for a sampler that can do this.
#[derive(Clone, Debug, PartialEq)]
pub struct Swap {
    /// The part it stands in; never a blend.
    pub part: usize,
    /// Which pieces of that part are the original.
    pub pieces: Range<usize>,
    /// The text to go to.
    pub edited: Vec<Piece>,
    /// When to control what.
    pub options: SwapOptions,
}

/// Reads `text`.
///
/// ```
/// use sd_conditioner::prompt::compel::{Part, parse};
/// let (conjunction, notes) = parse(r#"("a cat", "a dog").blend(0.3, 0.7)"#);
/// let (Part::Blend { weights, .. }, _) = &conjunction.parts[0] else { panic!("one blend") };
/// assert_eq!(*weights, [0.3, 0.7]);
/// assert!(notes.is_empty());
/// ```
pub fn parse(text: &str) -> (Conjunction, Vec<Note>) {
    let (conjunction, mut notes) = top::read(Characters::of(text));
    if conjunction.parts.is_empty() {
        let message = "nothing is left to encode; compel fails at that later";
        notes.push(Note::quirk(0..text.len(), message));
    }
    // The alternatives of the grammar see the same things again.
    let mut seen = Vec::with_capacity(notes.len());
    notes.sort_by_key(|note| (note.span.start, note.span.end));
    for note in notes {
        if seen.last() != Some(&note) {
            seen.push(note);
        }
    }
    (conjunction, seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Strength;

    /// What a prompt of one flat part is read as: texts with what is not 1 behind them, one space between.
    fn read(text: &str) -> (String, bool) {
        let (conjunction, notes) = parse(text);
        let [(Part::Flat(pieces), _)] = &conjunction.parts[..] else {
            panic!("{text:?}: {conjunction:?}");
        };
        let pieces = pieces.iter().map(|piece| match piece {
            Piece::Text { text, strength, .. } if *strength == Strength::NEUTRAL => text.clone(),
            Piece::Text { text, strength, .. } => format!("{text}*{:.2}", strength.get()),
            other => panic!("{other:?}"),
        });
        let refused = notes.iter().any(|note| note.message.contains("refuses"));
        (pieces.collect::<Vec<_>>().join(" "), refused)
    }

    /// As compel 2.5.1 on pyparsing 3.3.3 has it: a form feed in front of other white space is white space.
    #[test]
    fn form_feeds_are_read_where_white_space_follows() {
        let cases = [
            ("a \u{c} b", "a b"),
            ("\u{c} a", "a"),
            ("a\u{c}\u{c} b", "a b"),
            ("a \u{c} ", "a"),
            ("a\u{c}\nb", "a b"),
            ("a \u{c}\u{a0} b", "a b"),
            ("a\u{c}\u{200b} b", "a b"),
            ("a +\u{c} b", "a + b"),
            ("a+\u{c} b", "a+ b"),
            ("(a)++\u{c} b", "a*1.21 b"),
            ("a \u{c} b++", "a b*1.21"),
            ("(a \u{c} b)++", "(a b)++"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), (expected.to_owned(), false), "{text:?}");
        }
    }

    /// Nothing of compel's grammar takes these.
    #[test]
    fn other_control_characters_are_refused() {
        let refused = [
            "a\u{c}b",
            "a \u{c}",
            "a\u{c}++ b",
            "a \u{c}, b",
            "a \u{c}\u{a0}b",
            "a \u{c}\u{b} b",
            "(a)\u{c}b",
            "a \u{b} b",
            "a\u{b}b",
            "\u{b} b",
        ];
        for text in refused {
            assert!(read(text).1, "{text:?}");
        }
    }
}
