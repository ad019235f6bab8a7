//! Ready-made notes, so that all dialects speak alike.

use std::ops::Range;

use super::{Note, NoteKind, Strength};

/// Strengths that prompts are written with; beyond them is worth a note.
const USUAL: std::ops::RangeInclusive<f64> = 0.0..=3.0;

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
