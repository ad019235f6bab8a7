//! Byte-level BPE over the embedded CLIP vocabulary.

use std::fmt;
use std::sync::LazyLock;

use super::clean::{self, Part};
use super::split::{Piece, Pieces};
use super::vocabulary::{Vocabulary, bytes_of};
use super::{END_OF_TEXT, START_OF_TEXT, TokenId, TokenRule, VOCABULARY};
use crate::error::Result;

/// The CLIP tokenizer: one vocabulary for ViT-L, ViT-H and ViT-bigG.
///
/// ```
/// use sd_conditioner::tokens::{TokenRule, Tokenizer};
/// let tokenizer = Tokenizer::clip();
/// let ids = tokenizer.encode("a photo of a cat", TokenRule::default());
/// assert_eq!(ids, [320, 1125, 539, 320, 2368]);
/// assert_eq!(tokenizer.piece(2368), Some("cat</w>"));
/// assert_eq!(tokenizer.decode(&ids), "a photo of a cat");
/// ```
pub struct Tokenizer {
    vocabulary: Vocabulary,
}

impl Tokenizer {
    /// The tokenizer over the vocabulary embedded in this crate.
    pub fn clip() -> &'static Tokenizer {
        static CLIP: LazyLock<Tokenizer> = LazyLock::new(|| {
            Tokenizer::from_merges(include_str!("vocabulary/merges.txt"))
                .expect("a test reads the embedded vocabulary")
        });
        &CLIP
    }

    /// The tokenizer over the text of a `merges.txt`, for encoders with a vocabulary of their own.
    /// The number of merges is fixed (48,894), because the ids of the specials are.
    ///
    /// Tolerates a missing or odd header, CR LF, and empty lines at the end. Everything else that
    /// is wrong is an error of kind [`Vocabulary`](crate::error::ErrorKind::Vocabulary).
    pub fn from_merges(merges: &str) -> Result<Tokenizer> {
        Ok(Tokenizer {
            vocabulary: Vocabulary::from_merges(merges)?,
        })
    }

    /// The content ids of `text`: no start, no end, no padding, never cut. Cannot fail.
    pub fn encode(&self, text: &str, rule: TokenRule) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        let pattern = clean::pattern(rule.cleaner);
        clean::parts(text, rule, |part| match part {
            Part::Special(id) => ids.push(id),
            Part::Text(text) => {
                for piece in Pieces::new(text, pattern) {
                    match piece {
                        Piece::Special(id) => ids.push(id),
                        Piece::Word(word) => self.vocabulary.append(word.as_bytes(), &mut ids),
                    }
                }
            }
        });
        ids
    }

    /// The vocabulary's spelling of an id (`cat</w>`), in its byte alphabet; `None` beyond 49407.
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        self.vocabulary.piece(id)
    }

    /// The id whose [spelling](Self::piece) this is.
    pub(super) fn id_of(&self, spelling: &str) -> Option<TokenId> {
        self.vocabulary.id_of(spelling)
    }

    /// The text that ids stand for: specials and ids beyond the vocabulary dropped, word ends as
    /// spaces, none at either end (`decode` with `skip_special_tokens`, transformers'
    /// `CLIPTokenizer`). Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::new();
        for id in ids
            .iter()
            .filter(|id| !matches!(**id, START_OF_TEXT | END_OF_TEXT))
        {
            let (letters, ends) = bytes_of(self.piece(*id).unwrap_or_default());
            bytes.extend(letters);
            bytes.extend(ends.then_some(b' '));
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("pieces", &VOCABULARY)
            .finish_non_exhaustive()
    }
}
