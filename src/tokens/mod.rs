//! PROMPT → CHUNKS. Exact integers: the ids that each reference tool computes, in windows of 77.

mod bpe;
mod chunk;
mod clean;
mod ftfy;
mod html;
mod lexicon;
mod split;
mod unicode;
mod vocabulary;

pub use bpe::Tokenizer;
pub use chunk::{Chunk, ChunkRule, Chunks, LongText, PoolAt, Splice, Split, Trigger};
pub use lexicon::{FIRST_ADDED_ID, Known, Lexicon, NoEmbeddings};

/// A row of the token-embedding table.
pub type TokenId = u32;

/// Ids in one window: start, up to 75 of content, end, padding.
pub const CONTEXT: usize = 77;

/// Content ids that fit in one window.
pub const CONTENT: usize = CONTEXT - 2;

/// `<|startoftext|>`, the first id of every window.
pub const START_OF_TEXT: TokenId = 49406;

/// `<|endoftext|>`, the id after the content; the pooled vector is read at the first one.
pub const END_OF_TEXT: TokenId = 49407;

/// Rows of the token-embedding table: 256 bytes, 256 bytes at a word's end, 48894 merges, 2 specials.
pub const VOCABULARY: usize = 49408;

/// How a text is cleaned and cut before byte-pair encoding; one per reference tokenizer.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cleaner {
    /// OpenAI's CLIP (`clip/simple_tokenizer.py`): ftfy, HTML unescape twice, white space, Python
    /// `lower()`.
    OpenAi,
    /// `open_clip` (`src/open_clip/tokenizer.py`): the same, with its own spelling of the specials.
    OpenClip,
    /// transformers 4 `CLIPTokenizer` with ftfy installed.
    HfSlowFtfy,
    /// transformers 4 `CLIPTokenizer` without ftfy: a BERT-like cleaner.
    HfSlow,
    /// transformers 5, and the `tokenizers` pipeline: NFC, white space, per-character lower case.
    ///
    /// Two details follow transformers 5: `<|endoftext|>` is special in this spelling only, unless
    /// `bang_is_special`; `<|startoftext|>` in any mix of cases.
    #[default]
    HfFast,
    /// transformers 4 `CLIPTokenizerFast`: as [`HfFast`](Cleaner::HfFast), but both specials are
    /// found in any mix of cases.
    HfFast4,
    /// stable-diffusion.cpp (`src/tokenizers/clip_tokenizer.cpp`): ASCII lower case, and a pattern
    /// that knows the classes of ASCII only.
    SdCpp,
}

/// Everything that decides which ids a text gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenRule {
    /// The cleaning pipeline.
    pub cleaner: Cleaner,
    /// True where `!` is a registered padding token: every `!` of the text becomes id 0 and splits
    /// its surroundings (the tokenizer folders of SD 2.x and of SDXL's second encoder).
    pub bang_is_special: bool,
}
