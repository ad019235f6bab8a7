//! Byte-level BPE over the embedded CLIP vocabulary.

use super::{TokenId, TokenRule};

/// The CLIP tokenizer: one vocabulary for ViT-L, ViT-H and ViT-bigG.
#[derive(Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// The tokenizer over the vocabulary embedded in this crate.
    pub fn clip() -> &'static Tokenizer {
        unimplemented!()
    }

    /// The content ids of `text`: no start, no end, no padding, never cut. Cannot fail.
    pub fn encode(&self, text: &str, rule: TokenRule) -> Vec<TokenId> {
        let _ = (text, rule);
        unimplemented!()
    }

    /// The vocabulary's spelling of an id (`cat</w>`), in its byte alphabet; `None` beyond 49407.
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        let _ = id;
        unimplemented!()
    }

    /// The text that ids stand for: specials dropped, word ends as spaces.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let _ = ids;
        unimplemented!()
    }
}
