//! Text conditioning for Stable Diffusion.
#![doc(test(attr(deny(warnings))))]

pub mod conditioner;
pub mod conditioning;
pub mod encoder;
pub mod error;
pub mod hub;
pub mod kernels;
pub mod profile;
pub mod prompt;
pub mod tokens;
pub mod weights;

pub use candle_core;

pub use conditioner::{Builder, Conditioner, Embeddings, Request};
pub use conditioning::{Conditioning, Emphasis, Guidance, SizeHints, Timeline};
pub use error::{Error, ErrorKind, Result};
pub use profile::Profile;
pub use prompt::{Dialect, Prompt};
pub use weights::Family;
