//! stable-diffusion.cpp's windows: hard cuts; BREAK fills the rest of a window with end tokens.

use super::segments::Segments;
use super::window::Token;
use super::{CONTENT, Chunk, ChunkRule};

pub(super) fn windows(segments: &Segments, rule: ChunkRule) -> Vec<Chunk> {
    let mut tokens: Vec<Token> = Vec::new();
    for segment in &segments.list {
        if segment.forced_break {
            tokens.resize(tokens.len().next_multiple_of(CONTENT), Token::END);
        }
        tokens.extend_from_slice(&segment.tokens);
    }
    let window = |content: &[Token]| {
        let mut chunk = Chunk::around(content, &segments.names, rule.padding, rule.pool_at);
        chunk.refill(rule);
        chunk
    };
    if tokens.is_empty() {
        return vec![window(&[])];
    }
    tokens.chunks(CONTENT).map(window).collect()
}
