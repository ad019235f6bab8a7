//! compel's windows (`_chunk_and_pad_token_ids`, `compel/embeddings_provider.py`).

use super::segments::Segments;
use super::window::Token;
use super::{CONTENT, Chunk, ChunkRule, LongText, TokenId, Tokenizer};

/// `.</w>`
const DOT: TokenId = 269;

/// `.</w>`, `,</w>`, `;</w>`, `:</w>`
const PHRASE_ENDS: [TokenId; 4] = [DOT, 267, 282, 281];

pub(super) fn windows(
    segments: &Segments,
    rule: ChunkRule,
    mode: LongText,
    tokenizer: &Tokenizer,
) -> Vec<Chunk> {
    let tokens = segments.list.iter().flat_map(|segment| &segment.tokens);
    let tokens: Vec<Token> = tokens.copied().collect();
    let mut windows = Vec::new();
    let mut rest = tokens.as_slice();
    loop {
        let (now, later) = rest.split_at(cut(rest, mode, tokenizer));
        windows.push(Chunk::around(
            now,
            &segments.names,
            rule.padding,
            rule.pool_at,
        ));
        rest = later;
        if rest.is_empty() {
            return windows;
        }
    }
}

/// How many tokens the next window takes. A mode that finds nothing falls back to the next finer.
fn cut(rest: &[Token], mode: LongText, tokenizer: &Tokenizer) -> usize {
    if rest.len() <= CONTENT {
        return rest.len();
    }
    let order = [LongText::Sentences, LongText::Phrases, LongText::Words];
    let mut modes = order.iter().skip_while(|other| **other != mode);
    let found = modes.find_map(|mode| {
        let ends = |token: &Token| token.vector.is_none() && ends(token.id, *mode, tokenizer);
        rest[..CONTENT].iter().rposition(ends)
    });
    found.map_or(CONTENT, |place| place + 1)
}

/// Whether a sentence, a phrase or a word ends with this id.
fn ends(id: TokenId, mode: LongText, tokenizer: &Tokenizer) -> bool {
    match mode {
        LongText::Sentences => id == DOT,
        LongText::Phrases => PHRASE_ENDS.contains(&id),
        LongText::Words => tokenizer
            .piece(id)
            .is_some_and(|piece| piece.ends_with("</w>")),
        LongText::Brutal => false,
    }
}
