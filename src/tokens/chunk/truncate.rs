//! One window; the rest is lost.

use super::segments::Segments;
use super::window::Token;
use super::{CONTENT, Chunk, ChunkRule};
use crate::prompt::{Note, NoteKind};

/// What is cut, and the piece (1-based) that the limit cut although it would fit alone: compel cuts
/// each of them to 75 ids first, and tells such a one from those that are whole.
pub(super) fn windows(
    segments: &Segments,
    rule: ChunkRule,
) -> (Vec<Chunk>, Vec<Note>, Option<u32>) {
    let tokens = segments.list.iter().flat_map(|segment| &segment.tokens);
    let mut tokens: Vec<Token> = tokens.copied().collect();
    let notes = cut_note(segments, tokens.len(), CONTENT);
    let halved = tokens.get(CONTENT - 1).map(|last| last.piece);
    let halved = halved.filter(|piece| {
        let n_ids = |tokens: &[Token]| tokens.iter().filter(|one| one.piece == *piece).count();
        n_ids(&tokens).min(CONTENT) > n_ids(&tokens[..CONTENT])
    });
    tokens.truncate(CONTENT);
    let chunk = Chunk::around(&tokens, &segments.names, rule.padding, rule.pool_at);
    (
        vec![chunk],
        notes,
        halved.map(|piece| piece.wrapping_add(1)),
    )
}

/// Says what a limit loses, if it loses anything.
pub(super) fn cut_note(segments: &Segments, total: usize, limit: usize) -> Vec<Note> {
    if total <= limit {
        return Vec::new();
    }
    let message = format!(
        "{} of {total} tokens do not fit and were cut",
        total - limit
    );
    let mut seen = 0;
    let first_lost = segments.list.iter().find(|segment| {
        seen += segment.tokens.len();
        seen > limit
    });
    let start = first_lost.map_or(0, |segment| segment.span.start);
    let end = segments.list.last().map_or(start, |last| last.span.end);
    vec![Note {
        kind: NoteKind::Cut,
        span: start..end.max(start),
        message,
    }]
}
