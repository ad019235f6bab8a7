//! One window; the rest is lost.

use super::{CONTENT, Chunk, Segment, TokenId};
use crate::prompt::{Note, NoteKind};

pub(super) fn windows(segments: &[Segment], padding: TokenId) -> (Vec<Chunk>, Vec<Note>) {
    let mut tokens: Vec<_> = segments
        .iter()
        .flat_map(|segment| segment.tokens.clone())
        .collect();
    let notes = cut_note(segments, tokens.len());
    tokens.truncate(CONTENT);
    (vec![Chunk::around(&tokens, padding)], notes)
}

fn cut_note(segments: &[Segment], total: usize) -> Vec<Note> {
    if total <= CONTENT {
        return Vec::new();
    }
    let span = segments.first().map_or(0, |first| first.span.start)
        ..segments.last().map_or(0, |last| last.span.end);
    let message = format!(
        "{} of {total} tokens do not fit in one window and were cut",
        total - CONTENT
    );
    vec![Note {
        kind: NoteKind::Cut,
        span,
        message,
    }]
}
