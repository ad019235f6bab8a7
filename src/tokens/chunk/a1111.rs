//! A1111's and Forge's windows (`tokenize_line` / `process_tokens`, `modules/sd_hijack_clip.py`).
//!
//! The vectors of an embedding are kept beside the window, as offsets: when the tokens behind a
//! comma move on to the next window, the reference forgets to move those. That is reproduced.

use std::ops::Range;
use std::sync::Arc;

use super::segments::Segments;
use super::window::{Splice, Token, Vector};
use super::{CONTENT, CONTEXT, Chunk, ChunkRule, TokenId};
use crate::prompt::{Note, NoteKind};

/// `,</w>`
const COMMA: TokenId = 267;

pub(super) fn windows(
    segments: &Segments,
    rule: ChunkRule,
    backtrack: usize,
) -> (Vec<Chunk>, Vec<Note>) {
    let mut packer = Packer::new(&segments.names, rule, backtrack);
    for segment in &segments.list {
        packer.span = segment.span.clone();
        if segment.forced_break {
            packer.close();
        }
        for token in &segment.tokens {
            packer.place(*token);
        }
    }
    packer.finish()
}

struct Packer<'a> {
    rule: ChunkRule,
    backtrack: usize,
    names: &'a [Arc<str>],
    current: Vec<Token>,
    /// Vectors by the offset they were recorded at.
    fixes: Vec<(usize, Vector)>,
    /// Where the last comma of the current window stands.
    last_comma: Option<usize>,
    span: Range<usize>,
    done: Vec<Chunk>,
    notes: Vec<Note>,
}

impl<'a> Packer<'a> {
    fn new(names: &'a [Arc<str>], rule: ChunkRule, backtrack: usize) -> Packer<'a> {
        Packer {
            rule,
            backtrack,
            names,
            current: Vec::new(),
            fixes: Vec::new(),
            last_comma: None,
            span: 0..0,
            done: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn place(&mut self, token: Token) {
        // The vectors after an embedding's first belong to the position of the first.
        let follows = token.vector.is_some_and(|vector| vector.index > 0);
        if !follows {
            self.make_room(&token);
        }
        if let Some(vector) = token.vector {
            self.fixes.push((self.current.len(), vector));
        }
        self.current.push(Token {
            vector: None,
            ..token
        });
    }

    fn make_room(&mut self, token: &Token) {
        let full = self.current.len() == CONTENT;
        if token.id == COMMA {
            self.last_comma = Some(self.current.len());
        } else if full && let Some(comma) = self.comma_in_reach() {
            self.move_on(comma);
        }
        let needed = token.vector.map_or(1, |vector| vector.of.min(CONTENT));
        if self.current.len() + needed > CONTENT {
            self.close();
        }
    }

    /// The last comma, if it is near enough to the window's end to break there.
    fn comma_in_reach(&self) -> Option<usize> {
        let comma = self.last_comma?;
        (self.backtrack != 0 && CONTENT - comma <= self.backtrack).then_some(comma)
    }

    /// Tokens behind the comma begin the next window.
    fn move_on(&mut self, comma: usize) {
        let moved = self.current.split_off(comma + 1);
        if self.fixes.iter().any(|(offset, _)| *offset > comma) {
            let message = "an embedding behind a comma stays in the old window when its tokens \
                           move on; A1111 loses it like this";
            self.notes.push(Note {
                kind: NoteKind::Quirk,
                span: self.span.clone(),
                message: message.to_owned(),
            });
        }
        self.close();
        self.current = moved;
    }

    fn close(&mut self) {
        let (padding, pool_at) = (self.rule.padding, self.rule.pool_at);
        let mut chunk = Chunk::around(&self.current, self.names, padding, pool_at);
        chunk.refill(self.rule);
        let fixes = self.fixes.drain(..);
        let splices = fixes.map(|(offset, vector)| vector.at(offset + 1, self.names));
        chunk.splices = splices
            .filter(|splice: &Splice| splice.row < CONTEXT)
            .collect();
        self.done.push(chunk);
        self.current.clear();
        self.last_comma = None;
    }

    fn finish(mut self) -> (Vec<Chunk>, Vec<Note>) {
        if !self.current.is_empty() || self.done.is_empty() {
            self.close();
        }
        (self.done, self.notes)
    }
}
