//! Text conditioning for Stable Diffusion 1.x, 2.x, SDXL and its refiner: what a U-Net takes beside
//! its latents, made from prompts and a checkpoint file, in the numbers of the tool you name.
//!
//! ```text
//! text ── prompt ──▶ pieces ── tokens ──▶ windows of 77 ids ─┐
//!                                                            ├─ encoder ──▶ hidden states, pooled
//! file ── weights ─▶ canonical tensors ──────────────────────┘        │
//!                                                      conditioning ──┴─▶ context, pooled, vector
//! ```
//!
//! [`Conditioner`] is that flow: it opens a checkpoint, and encodes a [`Request`] into a
//! [`Conditioning`], or a prompt and its negative into a [`Guidance`] of one length. A [`Profile`]
//! fixes every choice in which the reference tools differ. Each step is a module that can be used
//! alone:
//!
//! ```
//! use sd_conditioner::tokens::{Chunks, Tokenizer};
//! use sd_conditioner::weights::{EncoderId, SyntheticSize};
//! use sd_conditioner::{Conditioner, Family, Profile, Prompt, Request};
//!
//! // Text to pieces, pieces to windows. No weights are needed to look at them.
//! let rules = Profile::A1111.choices();
//! let prompt = Prompt::parse("a lighthouse at dusk", rules.dialect);
//! let windows = Chunks::of(&prompt, Tokenizer::clip(), rules.chunk_rule(EncoderId::ClipL));
//! assert_eq!(windows.iter().next().unwrap().ids()[..6], [49406, 320, 13717, 536, 19708, 49407]);
//!
//! // A file to encoders. Random ones stand in for `Conditioner::open("model.safetensors")?`.
//! let text = Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?;
//!
//! // Everything at once: hidden states, pooled vector, and SDXL's size vector.
//! let request = Request::new("a lighthouse at dusk").profile(Profile::A1111);
//! let conditioning = text.encode(request)?;
//! assert_eq!(conditioning.context().dims(), [1, 77, 128 + 256]);
//! assert_eq!(conditioning.pooled().unwrap().dims(), [1, 256]);
//! assert_eq!(conditioning.vector()?.unwrap().dims(), [1, 256 + 6 * 256]);
//! # Ok::<(), sd_conditioner::Error>(())
//! ```
//!
//! Tensors are candle's, and [`candle_core`] is re-exported so that versions match. What can go wrong
//! is one [`Error`] with a kind, a place and a hint.
#![doc(test(attr(deny(warnings))))]

pub mod conditioner;
pub mod conditioning;
pub mod encoder;
pub mod error;
#[cfg(feature = "graph")]
pub mod graph;
pub mod hub;
pub mod kernels;
mod mapped;
mod pages;
pub mod profile;
pub mod prompt;
mod stop;
pub mod storage;
mod threads;
pub mod tokens;
mod transfers;
pub mod weights;

pub use candle_core;

pub use conditioner::{Builder, Conditioner, Embeddings, Request};
pub use conditioning::{Conditioning, ConditioningList, Emphasis, Guidance, SizeHints, Timeline};
pub use error::{Error, ErrorKind, Result};
pub use profile::Profile;
pub use prompt::{Dialect, Prompt};
pub use weights::Family;

/// The README's programs are compiled and run too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
