//! Seeded stand-in weights: every number is a function of seed, encoder, tensor name and index.

use super::EncoderId;

/// Random weights of one encoder. Embeddings made with them mean nothing.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// Which encoder.
    pub encoder: EncoderId,
}
