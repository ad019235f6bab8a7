//! Ready-made notes, so that all dialects speak alike.

use std::fmt;
use std::ops::Range;

use super::{Note, NoteKind, Strength};

/// Strengths that prompts are written with; beyond them is worth a note.
const USUAL: std::ops::RangeInclusive<f64> = 0.0..=3.0;

impl NoteKind {
    /// One word for it, such as `cut` or `unknown_embedding`.
    pub const fn name(self) -> &'static str {
        match self {
            NoteKind::Cut => "cut",
            NoteKind::Unbalanced => "unbalanced",
            NoteKind::UnknownEmbedding => "unknown_embedding",
            NoteKind::UnknownLora => "unknown_lora",
            NoteKind::Strength => "strength",
            NoteKind::ReferenceError => "reference_error",
            NoteKind::Quirk => "quirk",
            NoteKind::Length => "length",
            NoteKind::Unused => "unused",
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The message, what it is about, and the bytes of the prompt that are meant, if some are.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.kind)?;
        if !self.span.is_empty() {
            write!(f, " at {}..{}", self.span.start, self.span.end)?;
        }
        f.write_str(")")
    }
}

impl Note {
    pub(super) fn new(kind: NoteKind, span: Range<usize>, message: impl Into<String>) -> Note {
        Note {
            kind,
            span,
            message: message.into(),
        }
    }

    pub(super) fn unbalanced(span: Range<usize>, message: impl Into<String>) -> Note {
        Note::new(NoteKind::Unbalanced, span, message)
    }

    pub(super) fn quirk(span: Range<usize>, message: impl Into<String>) -> Note {
        Note::new(NoteKind::Quirk, span, message)
    }

    pub(super) fn reference_error(span: Range<usize>, message: impl Into<String>) -> Note {
        Note::new(NoteKind::ReferenceError, span, message)
    }

    /// A note if `strength` is not finite or unusual.
    pub(super) fn about_strength(strength: Strength, span: &Range<usize>) -> Option<Note> {
        let value = strength.get();
        let message = if !value.is_finite() {
            format!("the strength is {value}; what it multiplies is lost")
        } else if !USUAL.contains(&value) {
            format!("the strength {value} is far from the usual 0 to 3")
        } else {
            return None;
        };
        Some(Note::new(NoteKind::Strength, span.clone(), message))
    }
}
