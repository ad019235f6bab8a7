//! Windows of 77 ids, by each tool's rule for long prompts.

mod a1111;
mod comfy;
mod truncate;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::slice;

use super::{CONTENT, CONTEXT, END_OF_TEXT, START_OF_TEXT, TokenId, TokenRule, Tokenizer};
use crate::prompt::{Note, Piece, Prompt};

/// How a prompt that needs more than 75 ids is cut.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// One window; what does not fit is lost (transformers' `truncation=True`; diffusers).
    Truncate,
    /// Whole segments move to the next window, large ones are cut (`ComfyUI`, `comfy/sd1_clip.py`).
    Groups,
    /// Back to the last comma within this many ids; 0 cuts hard (A1111 and Forge,
    /// `comma_padding_backtrack` in `modules/sd_hijack_clip.py`).
    Comma {
        /// How far back a comma is looked for; both tools default to 20.
        backtrack: usize,
    },
}

/// Everything that decides a prompt's windows for one encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRule {
    /// How text becomes ids.
    pub tokens: TokenRule,
    /// The id after the end token.
    pub padding: TokenId,
    /// How long prompts are cut.
    pub split: Split,
}

/// One window: start, content, end, padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    ids: [TokenId; CONTEXT],
    strengths: [f64; CONTEXT],
    pieces: [u32; CONTEXT],
    end: usize,
}

impl Chunk {
    /// The ids.
    pub fn ids(&self) -> &[TokenId; CONTEXT] {
        &self.ids
    }

    /// The strength of each row; 1 for start, end and padding.
    pub fn strengths(&self) -> &[f64; CONTEXT] {
        &self.strengths
    }

    /// For each row, 1 + the index of the prompt's piece it came from; 0 for start, end, padding.
    pub fn pieces(&self) -> &[u32; CONTEXT] {
        &self.pieces
    }

    /// The row of the first end token, where the pooled vector is read.
    pub fn end(&self) -> usize {
        self.end
    }

    /// How many content ids it holds.
    pub fn content(&self) -> usize {
        self.pieces.iter().filter(|piece| **piece != 0).count()
    }

    /// A window around up to 75 content ids.
    pub(crate) fn around(content: &[Token], padding: TokenId) -> Chunk {
        debug_assert!(content.len() <= CONTENT, "a window holds 75 ids");
        let mut chunk = Chunk {
            ids: [padding; CONTEXT],
            strengths: [1.0; CONTEXT],
            pieces: [0; CONTEXT],
            end: 0,
        };
        chunk.ids[0] = START_OF_TEXT;
        for (row, token) in (1..CONTEXT).zip(content) {
            chunk.ids[row] = token.id;
            chunk.strengths[row] = token.strength;
            chunk.pieces[row] = token.piece + 1;
        }
        chunk.ids[content.len() + 1] = END_OF_TEXT;
        // A literal end token in the text counts: every tool pools at the first one.
        chunk.end = chunk
            .ids
            .iter()
            .position(|id| *id == END_OF_TEXT)
            .expect("an end token was placed above");
        chunk
    }

    /// The window of the empty prompt.
    pub fn empty(padding: TokenId) -> Chunk {
        Chunk::around(&[], padding)
    }
}

/// One content id on its way into a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) id: TokenId,
    pub(crate) strength: f64,
    pub(crate) piece: u32,
}

/// The windows of one prompt for one encoder; never empty.
///
/// ```
/// use sd_conditioner::tokens::{ChunkRule, Chunks, END_OF_TEXT, Split, TokenRule, Tokenizer};
/// use sd_conditioner::{Dialect, Prompt};
/// let rule = ChunkRule { tokens: TokenRule::default(), padding: END_OF_TEXT, split: Split::Truncate };
/// let prompt = Prompt::parse("a photo of a cat", Dialect::Plain);
/// let chunks = Chunks::of(&prompt, Tokenizer::clip(), rule);
/// assert_eq!(chunks.iter().next().unwrap().ids()[..7], [49406, 320, 1125, 539, 320, 2368, 49407]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    windows: Vec<Chunk>,
    padding: TokenId,
    notes: Vec<Note>,
}

impl Chunks {
    /// Tokenizes every piece on its own, as all reference tools do, and cuts by the rule.
    pub fn of(prompt: &Prompt, tokenizer: &Tokenizer, rule: ChunkRule) -> Chunks {
        let segments = segments(prompt, tokenizer, rule.tokens);
        let (windows, notes) = match rule.split {
            Split::Truncate => truncate::windows(&segments, rule.padding),
            Split::Groups => (comfy::windows(&segments, rule.padding), Vec::new()),
            Split::Comma { backtrack } => (
                a1111::windows(&segments, rule.padding, backtrack),
                Vec::new(),
            ),
        };
        Chunks {
            windows,
            padding: rule.padding,
            notes,
        }
    }

    /// How many windows.
    pub fn len(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.windows.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The windows in order.
    pub fn iter(&self) -> slice::Iter<'_, Chunk> {
        self.windows.iter()
    }

    /// What was cut.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The same, followed by windows of the empty prompt until there are `len`.
    #[must_use]
    pub fn padded_to(mut self, len: usize) -> Chunks {
        let empty = Chunk::empty(self.padding);
        self.windows.resize(self.windows.len().max(len), empty);
        self
    }

    /// The first `len` windows.
    #[must_use]
    pub fn cut_to(mut self, len: NonZeroUsize) -> Chunks {
        self.windows.truncate(len.get());
        self
    }
}

impl<'a> IntoIterator for &'a Chunks {
    type Item = &'a Chunk;
    type IntoIter = slice::Iter<'a, Chunk>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One piece of a prompt as ids.
struct Segment {
    /// Empty for a forced break.
    tokens: Vec<Token>,
    span: Range<usize>,
    forced_break: bool,
}

fn segments(prompt: &Prompt, tokenizer: &Tokenizer, rule: TokenRule) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(prompt.pieces().len());
    for (piece, index) in prompt.pieces().iter().zip(0_u32..) {
        segments.push(match piece {
            Piece::Text {
                text,
                strength,
                span,
            } => {
                let token = |id| Token {
                    id,
                    strength: strength.get(),
                    piece: index,
                };
                let tokens = tokenizer
                    .encode(text, rule)
                    .into_iter()
                    .map(token)
                    .collect();
                Segment {
                    tokens,
                    span: span.clone(),
                    forced_break: false,
                }
            }
            // Embeddings are spliced in by a later stage; until it exists the name is not text.
            Piece::Embedding { span, .. } => Segment {
                tokens: Vec::new(),
                span: span.clone(),
                forced_break: false,
            },
            Piece::Break { span } => Segment {
                tokens: Vec::new(),
                span: span.clone(),
                forced_break: true,
            },
        });
    }
    segments
}
