//! `ComfyUI`'s windows (`SDTokenizer.tokenize_with_weights`, `comfy/sd1_clip.py`).
//!
//! Every segment is a group. A group that does not fit goes whole into the next window, unless it is
//! large: then it fills this one and goes on in the next.

use std::sync::Arc;

use super::segments::Segments;
use super::window::Token;
use super::{CONTENT, Chunk, ChunkRule};

/// A group of at least this many tokens is cut rather than moved (`max_word_length`).
const LARGE_GROUP: usize = 8;

pub(super) fn windows(segments: &Segments, rule: ChunkRule) -> Vec<Chunk> {
    let mut packer = Packer {
        rule,
        names: &segments.names,
        current: Vec::new(),
        done: Vec::new(),
    };
    for segment in &segments.list {
        packer.place(&segment.tokens);
    }
    packer.finish()
}

struct Packer<'a> {
    rule: ChunkRule,
    names: &'a [Arc<str>],
    current: Vec<Token>,
    done: Vec<Chunk>,
}

impl Packer<'_> {
    fn place(&mut self, group: &[Token]) {
        let large = group.len() >= LARGE_GROUP;
        let mut rest = group;
        while !rest.is_empty() {
            let room = CONTENT - self.current.len();
            let taken = if rest.len() <= room {
                rest.len()
            } else if large {
                room
            } else {
                0
            };
            let (now, later) = rest.split_at(taken);
            self.current.extend_from_slice(now);
            if !later.is_empty() {
                self.close();
            }
            rest = later;
        }
    }

    fn close(&mut self) {
        let (padding, pool_at) = (self.rule.padding, self.rule.pool_at);
        let chunk = Chunk::around(&self.current, self.names, padding, pool_at);
        self.done.push(chunk);
        self.current.clear();
    }

    fn finish(mut self) -> Vec<Chunk> {
        // The reference opens a window at the start and closes the last one whatever it holds.
        self.close();
        self.done
    }
}
