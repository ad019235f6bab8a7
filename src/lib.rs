//! Text conditioning for Stable Diffusion.
#![doc(test(attr(deny(warnings))))]

pub mod error;
pub mod hub;
pub mod prompt;
pub mod tokens;
pub mod weights;

pub use candle_core;

pub use error::{Error, ErrorKind, Result};
pub use prompt::{Dialect, Prompt};
pub use weights::Family;
