//! Windows of 77 ids, by each tool's rule for long prompts.

mod a1111;
mod comfy;
mod compel;
mod lpw;
mod sd_cpp;
mod segments;
mod triggers;
mod truncate;
mod window;

pub use triggers::Trigger;
pub use window::{Chunk, PoolAt, Splice};

use std::num::NonZeroUsize;
use std::slice;

use self::segments::Segments;
use super::lexicon::{Lexicon, NoEmbeddings};
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
    /// At the end of a sentence, a phrase or a word (compel's `SplitLongTextMode`).
    LongText(LongText),
    /// Every 75 ids; BREAK fills a window with end tokens (stable-diffusion.cpp).
    SdCpp,
    /// At most three windows, padding before the end token (diffusers'
    /// `lpw_stable_diffusion.py`).
    Lpw,
    /// Every 75 ids, the last window short, both sides filled to one length with end tokens
    /// (diffusers' `lpw_stable_diffusion_xl.py`).
    LpwSdxl,
}

/// Where compel cuts; what cannot be found falls back to the next.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongText {
    /// After the last full stop.
    Sentences,
    /// After the last of `.`, `,`, `;`, `:`.
    Phrases,
    /// After the last whole word.
    Words,
    /// At 75 ids.
    Brutal,
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
    /// Where the names of embeddings are looked for.
    pub trigger: Trigger,
    /// Where the pooled vector is read.
    pub pool_at: PoolAt,
    /// Whether everything after the first end token becomes padding, even what was typed.
    pub refill: bool,
}

impl Default for ChunkRule {
    /// ViT-L in diffusers, without embeddings.
    fn default() -> ChunkRule {
        ChunkRule {
            tokens: TokenRule::default(),
            padding: END_OF_TEXT,
            split: Split::Truncate,
            trigger: Trigger::None,
            pool_at: PoolAt::FirstEnd,
            refill: false,
        }
    }
}

/// The windows of one prompt for one encoder; never empty.
///
/// ```
/// use sd_conditioner::tokens::{ChunkRule, Chunks, Tokenizer};
/// use sd_conditioner::{Dialect, Prompt};
/// let prompt = Prompt::parse("a photo of a cat", Dialect::Plain);
/// let chunks = Chunks::of(&prompt, Tokenizer::clip(), ChunkRule::default());
/// assert_eq!(chunks.iter().next().unwrap().ids()[..7], [49406, 320, 1125, 539, 320, 2368, 49407]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    windows: Vec<Chunk>,
    padding: TokenId,
    rows: usize,
    /// The piece (1-based) that a limit cut in two.
    halved: Option<u32>,
    notes: Vec<Note>,
}

impl Chunks {
    /// Tokenizes every piece on its own, as all reference tools do, and cuts by the rule.
    pub fn of(prompt: &Prompt, tokenizer: &Tokenizer, rule: ChunkRule) -> Chunks {
        Chunks::of_pieces(prompt.pieces(), tokenizer, rule, &NoEmbeddings)
    }

    /// The same for some pieces, with embeddings.
    pub fn of_pieces(
        pieces: &[Piece],
        tokenizer: &Tokenizer,
        rule: ChunkRule,
        lexicon: &dyn Lexicon,
    ) -> Chunks {
        let segments = Segments::of(pieces, tokenizer, rule, lexicon);
        Chunks::cut(&segments, rule, tokenizer, 0)
    }

    /// The same with at least as much as so many content ids need, where the rule fills both sides
    /// itself ([`Split::Lpw`], [`Split::LpwSdxl`]).
    pub(crate) fn of_pieces_filled(
        pieces: &[Piece],
        tokenizer: &Tokenizer,
        rule: ChunkRule,
        (lexicon, at_least): (&dyn Lexicon, usize),
    ) -> Chunks {
        let segments = Segments::of(pieces, tokenizer, rule, lexicon);
        Chunks::cut(&segments, rule, tokenizer, at_least)
    }

    fn cut(segments: &Segments, rule: ChunkRule, tokenizer: &Tokenizer, fill: usize) -> Chunks {
        let (mut rows, mut halved) = (None, None);
        let (windows, cut) = match rule.split {
            Split::Truncate => {
                let (windows, cut, piece) = truncate::windows(segments, rule);
                halved = piece;
                (windows, cut)
            }
            Split::Groups => (comfy::windows(segments, rule), Vec::new()),
            Split::Comma { backtrack } => a1111::windows(segments, rule, backtrack),
            Split::LongText(mode) => (compel::windows(segments, rule, mode, tokenizer), Vec::new()),
            Split::SdCpp => (sd_cpp::windows(segments, rule), Vec::new()),
            Split::Lpw => lpw::windows(segments, rule, fill),
            Split::LpwSdxl => {
                let (windows, kept) = lpw::short_windows(segments, rule, fill);
                rows = Some(kept);
                (windows, Vec::new())
            }
        };
        Chunks {
            rows: rows.unwrap_or(windows.len() * CONTEXT),
            windows,
            padding: rule.padding,
            halved,
            notes: segments.notes.iter().cloned().chain(cut).collect(),
        }
    }

    /// The windows of several texts, one text after the other.
    pub(crate) fn joined<'a>(mut texts: impl Iterator<Item = &'a Chunks>) -> Option<Chunks> {
        let mut all = texts.next()?.clone();
        for text in texts {
            all.rows += text.rows;
            all.windows.extend_from_slice(&text.windows);
            all.notes.extend_from_slice(&text.notes);
        }
        Some(all)
    }

    /// How many windows.
    pub fn len(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.windows.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The windows in order.
    pub fn iter(&self) -> slice::Iter<'_, Chunk> {
        self.windows.iter()
    }

    /// How many rows of hidden states are kept: 77 for each window, except where a rule has a short
    /// last one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The piece, as [`Chunk::pieces`] counts them, that [`Split::Truncate`] cut in two; `None` where
    /// it fills the window by itself.
    pub(crate) fn halved(&self) -> Option<u32> {
        self.halved
    }

    /// The padding id of the encoder they are for.
    pub fn padding(&self) -> TokenId {
        self.padding
    }

    /// What was cut, and which embeddings are missing.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The same with other notes.
    pub(crate) fn with_notes(mut self, notes: Vec<Note>) -> Chunks {
        self.notes = notes;
        self
    }

    /// True when some row has a strength other than exactly 1.
    #[expect(clippy::float_cmp, reason = "neutral is exact")]
    pub fn has_emphasis(&self) -> bool {
        let mut strengths = self.windows.iter().flat_map(Chunk::strengths);
        strengths.any(|strength| *strength != 1.0)
    }

    /// The same, followed by windows of the empty prompt until there are `len`.
    #[must_use]
    pub fn padded_to(mut self, len: usize) -> Chunks {
        if len > self.windows.len() {
            let empty = Chunk::empty(self.padding);
            self.windows.resize(len, empty);
            self.rows = len * CONTEXT;
        }
        self
    }

    /// The first `len` windows.
    #[must_use]
    pub fn cut_to(mut self, len: NonZeroUsize) -> Chunks {
        self.windows.truncate(len.get());
        self.rows = self.rows.min(self.windows.len() * CONTEXT);
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
