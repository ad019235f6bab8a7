//! TEXT → PROMPT. Grammar only, and total: every string parses.
//!
//! A [`Prompt`] is a list of [`Piece`]s with strengths and byte spans, and [`Note`]s about what had
//! to be guessed. Which brackets mean something is decided by the [`Dialect`].

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

mod a1111;
mod brackets;
pub mod comfy;
pub mod comments;
pub mod compel;
pub mod compose;
mod kohya;
pub mod networks;
mod note;
pub(crate) mod python;
mod scan;
pub mod schedule;
mod sdcpp;
mod strengths;

/// True for what Python's `str.strip` leaves nothing of.
pub(crate) fn is_blank(text: &str) -> bool {
    python::strip(text).is_empty()
}

/// Which tool's grammar a text is written in.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// No grammar: every character is text.
    #[default]
    Plain,
    /// ComfyUI (`comfy/sd1_clip.py`): `(a:1.2)` sets a strength, nothing is closed for you.
    ComfyUi,
    /// AUTOMATIC1111 1.10 and Forge (`modules/prompt_parser.py`): strengths multiply, `[a]` weakens,
    /// `BREAK` begins a new window. Schedules, `AND`, comments and `<lora:..>` come before this
    /// grammar and have functions of their own in this module.
    A1111,
    /// compel, InvokeAI's grammar (`compel/prompt_parser.py`): `word++`, `(words)1.3`. Blends and
    /// conjunctions are in [`Prompt::composition`].
    Compel,
    /// stable-diffusion.cpp (`src/core/util.cpp`): A1111's grammar in single precision.
    SdCpp,
    /// diffusers' community pipeline `lpw_stable_diffusion.py`: A1111's old grammar without `BREAK`.
    LpwSd,
    /// diffusers' community pipeline `lpw_stable_diffusion_xl.py`: `BREAK` becomes a word.
    LpwSdxl,
    /// sd-scripts (`gen_img.py`): A1111's old grammar, `BREAK` anywhere.
    Kohya,
}

/// How strongly a piece is meant; 1 is neutral. (A *weight* is a tensor, a *strength* is emphasis.)
///
/// Kept in f64, as the reference parsers compute it; any value they can produce is allowed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Strength(f64);

impl Strength {
    /// Changes nothing.
    pub const NEUTRAL: Strength = Strength(1.0);

    /// A strength as the reference parser computed it.
    pub const fn new(value: f64) -> Strength {
        Strength(value)
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// True when it is exactly 1.
    #[expect(clippy::float_cmp, reason = "neutral is exact")]
    pub fn is_neutral(self) -> bool {
        self.0 == 1.0
    }
}

/// One part of a prompt. Spans are byte ranges of the source text.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text to tokenize on its own.
    Text {
        /// The text, escapes already undone.
        text: String,
        /// Its strength.
        strength: Strength,
        /// Where it stands in the source.
        span: Range<usize>,
    },
    /// A textual-inversion embedding, by name.
    Embedding {
        /// The name as written.
        name: String,
        /// Its strength.
        strength: Strength,
        /// Where it stands in the source.
        span: Range<usize>,
    },
    /// A forced start of a new window.
    Break {
        /// Where it stands in the source.
        span: Range<usize>,
    },
}

/// Something worth telling the author of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// The bytes of the source that are meant.
    pub span: Range<usize>,
    /// For people.
    pub message: String,
}

/// What a [`Note`] is about.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// Text beyond the last window was dropped.
    Cut,
    /// A bracket without its partner.
    Unbalanced,
    /// An embedding that is not known.
    UnknownEmbedding,
    /// A LoRA that is not known.
    UnknownLora,
    /// A strength that is not finite or far outside the usual range.
    Strength,
    /// The reference tool would have raised an error here.
    ReferenceError,
    /// A quirk of the reference tool that is reproduced on purpose.
    Quirk,
    /// Positive and negative could not be brought to one length the tool's own way.
    Length,
    /// A text that no encoder reads.
    Unused,
}

/// A parsed prompt.
///
/// ```
/// use sd_conditioner::{Dialect, Prompt};
/// let prompt = Prompt::parse("a (cat)", Dialect::Plain);
/// assert_eq!(prompt.pieces().len(), 1);
/// assert!(!prompt.has_emphasis());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    source: String,
    dialect: Dialect,
    pieces: Vec<Piece>,
    notes: Vec<Note>,
    composition: Option<Box<compel::Conjunction>>,
}

impl Prompt {
    /// Reads `text` in `dialect`. Total: what the reference tool would refuse becomes a note.
    pub fn parse(text: &str, dialect: Dialect) -> Prompt {
        let mut composition = None;
        let (pieces, mut notes) = match dialect {
            Dialect::Plain => (plain(text), Vec::new()),
            Dialect::ComfyUi => comfy::parse(text),
            Dialect::A1111 => a1111::parse(text, a1111::Tool::A1111),
            Dialect::Compel => {
                let (conjunction, notes) = compel::parse(text);
                let conjunction = composition.insert(Box::new(conjunction));
                (conjunction.pieces(), notes)
            }
            Dialect::SdCpp => sdcpp::parse(text),
            Dialect::LpwSd => a1111::parse(text, a1111::Tool::LpwSd),
            Dialect::LpwSdxl => a1111::parse(text, a1111::Tool::LpwSdxl),
            Dialect::Kohya => kohya::parse(text),
        };
        notes.sort_by_key(|note| note.span.start);
        Prompt {
            source: text.to_owned(),
            dialect,
            pieces,
            notes,
            composition,
        }
    }

    /// Reads `text` in `dialect`, refusing what the reference tool refuses.
    ///
    /// ```
    /// use sd_conditioner::{Dialect, ErrorKind, Prompt};
    /// let error = Prompt::parse_strict("(a:1.2.3)", Dialect::A1111).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Prompt);
    /// assert_eq!(error.span(), Some(3..8));
    /// ```
    pub fn parse_strict(text: &str, dialect: Dialect) -> Result<Prompt> {
        let prompt = Prompt::parse(text, dialect);
        let refused = prompt
            .notes
            .iter()
            .find(|note| note.kind == NoteKind::ReferenceError);
        match refused {
            None => Ok(prompt),
            Some(note) => Err(Error::new(ErrorKind::Prompt, note.message.clone())
                .at_span(note.span.clone())
                .hint("Prompt::parse reads it anyway")),
        }
    }

    /// The text as given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The dialect it was read in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The parts, in order. Where [`Prompt::composition`] is more than one flat part, these are the
    /// pieces of all of them one after the other.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What [`Dialect::Compel`] made of the text: the parts to encode on their own and how to put
    /// them together. `None` in any other dialect.
    pub fn composition(&self) -> Option<&compel::Conjunction> {
        self.composition.as_deref()
    }

    /// What had to be guessed.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// True when some piece has a strength other than exactly 1.
    pub fn has_emphasis(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Text { strength, .. } | Piece::Embedding { strength, .. } => {
                !strength.is_neutral()
            }
            Piece::Break { .. } => false,
        })
    }
}

/// The whole text as one neutral piece.
fn plain(text: &str) -> Vec<Piece> {
    let span = 0..text.len();
    vec![Piece::Text {
        text: text.to_owned(),
        strength: Strength::NEUTRAL,
        span,
    }]
}
