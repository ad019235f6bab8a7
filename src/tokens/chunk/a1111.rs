//! A1111's and Forge's windows (`tokenize_line` / `process_tokens`, `modules/sd_hijack_clip.py`).

use super::{CONTENT, Chunk, END_OF_TEXT, Segment, Token, TokenId};

/// `,</w>`
const COMMA: TokenId = 267;

pub(super) fn windows(segments: &[Segment], padding: TokenId, backtrack: usize) -> Vec<Chunk> {
    let mut packer = Packer {
        padding,
        backtrack,
        current: Vec::new(),
        last_comma: None,
        done: Vec::new(),
    };
    for segment in segments {
        if segment.forced_break {
            packer.close();
        }
        for token in &segment.tokens {
            packer.place(*token);
        }
    }
    packer.finish()
}

struct Packer {
    padding: TokenId,
    backtrack: usize,
    current: Vec<Token>,
    /// Where the last comma of the current window stands.
    last_comma: Option<usize>,
    done: Vec<Chunk>,
}

impl Packer {
    fn place(&mut self, token: Token) {
        let full = self.current.len() == CONTENT;
        if token.id == COMMA {
            self.last_comma = Some(self.current.len());
        } else if full && let Some(comma) = self.comma_in_reach() {
            let moved = self.current.split_off(comma + 1);
            self.close();
            self.current = moved;
        }
        if self.current.len() == CONTENT {
            self.close();
        }
        self.current.push(token);
    }

    /// The last comma, if it is near enough to the window's end to break there.
    fn comma_in_reach(&self) -> Option<usize> {
        let comma = self.last_comma?;
        (self.backtrack != 0 && CONTENT - comma <= self.backtrack).then_some(comma)
    }

    fn close(&mut self) {
        let mut chunk = Chunk::around(&self.current, self.padding);
        if self.padding != END_OF_TEXT {
            // Everything after the first end token becomes padding, a typed end token included.
            chunk.ids[chunk.end + 1..].fill(self.padding);
        }
        self.done.push(chunk);
        self.current.clear();
        self.last_comma = None;
    }

    fn finish(mut self) -> Vec<Chunk> {
        if !self.current.is_empty() || self.done.is_empty() {
            self.close();
        }
        self.done
    }
}
