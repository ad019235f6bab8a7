//! The windows of diffusers' community pipelines for long prompts.

use super::segments::Segments;
use super::truncate::cut_note;
use super::window::Token;
use super::{CONTENT, CONTEXT, Chunk, ChunkRule, END_OF_TEXT};
use crate::prompt::Note;

/// `lpw_stable_diffusion.py`: at most so many windows (`max_embeddings_multiples`); padding stands
/// before a single end token in the last row.
const MOST_WINDOWS: usize = 3;

pub(super) fn windows(
    segments: &Segments,
    rule: ChunkRule,
    at_least: usize,
) -> (Vec<Chunk>, Vec<Note>) {
    let mut tokens = tokens(segments);
    let notes = cut_note(segments, tokens.len(), MOST_WINDOWS * CONTENT);
    tokens.truncate(MOST_WINDOWS * CONTENT);
    let mut windows: Vec<Chunk> = tokens
        .chunks(CONTENT)
        .map(|content| end_last(content, segments, rule))
        .collect();
    let n_windows = at_least
        .min(MOST_WINDOWS * CONTENT)
        .div_ceil(CONTENT)
        .max(1);
    while windows.len() < n_windows {
        windows.push(end_last(&[], segments, rule));
    }
    (windows, notes)
}

/// A window of this pipeline: start, content, padding, end.
fn end_last(content: &[Token], segments: &Segments, rule: ChunkRule) -> Chunk {
    let mut chunk = Chunk::around(content, &segments.names, rule.padding, rule.pool_at);
    if content.len() < CONTENT {
        chunk.ids[content.len() + 1] = rule.padding;
        chunk.ids[CONTEXT - 1] = END_OF_TEXT;
        chunk.end = chunk.pool_row(rule.pool_at);
    }
    chunk
}

/// `lpw_stable_diffusion_xl.py`: hard cuts; the last window is short, and how many rows it has is
/// told. At least `at_least` ids, the missing ones end tokens (the other side's length).
pub(super) fn short_windows(
    segments: &Segments,
    rule: ChunkRule,
    at_least: usize,
) -> (Vec<Chunk>, usize) {
    let mut tokens = tokens(segments);
    tokens.resize(tokens.len().max(at_least), Token::END);
    let rows = match tokens.len() {
        0 => CONTEXT, // the reference fails here
        n => n + 2 * n.div_ceil(CONTENT),
    };
    let window =
        |content: &[Token]| Chunk::around(content, &segments.names, rule.padding, rule.pool_at);
    let mut windows: Vec<Chunk> = tokens.chunks(CONTENT).map(window).collect();
    if windows.is_empty() {
        windows.push(window(&[]));
    }
    (windows, rows)
}

fn tokens(segments: &Segments) -> Vec<Token> {
    let tokens = segments.list.iter().flat_map(|segment| &segment.tokens);
    tokens.copied().collect()
}
