//! CHUNKS → HIDDEN STATES + POOLED. One causal transformer for ViT-L, ViT-H and ViT-bigG, and the
//! table that says which of its states a diffusion model reads.

mod changes;
mod config;
mod layer;
mod model;
mod moving;
mod read;
mod readout;
mod weight;
mod whole;
mod window;

pub use config::{ClipConfig, Gelu};
pub use model::{ClipText, Encoded};
pub use readout::{ClipSkip, Pooled, Readout};
pub use weight::{Kept, Quantized};
pub use window::Window;

pub(crate) use model::MATRIX_TYPES;
pub(crate) use moving::Move;
