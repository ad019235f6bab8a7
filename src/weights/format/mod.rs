//! BYTES → NAMED TENSORS. What a file is, where its tensors lie, and the values at one place of it.

pub(crate) mod appearing;
pub(crate) mod archive;
pub(crate) mod blocks;
mod converting;
pub(crate) mod decode;
pub(crate) mod file;
pub(crate) mod filling;
pub(crate) mod folder;
#[cfg(feature = "gguf")]
pub(crate) mod gguf;
#[cfg(not(feature = "gguf"))]
#[path = "no_gguf.rs"]
pub(crate) mod gguf;
pub(crate) mod header;
mod mapping;
#[cfg(feature = "pickle")]
pub(crate) mod pickle;
#[cfg(not(feature = "pickle"))]
#[path = "no_pickle.rs"]
pub(crate) mod pickle;
pub(crate) mod pieces;
mod positioned;
mod sending;
pub(crate) mod shards;
pub(crate) mod sniff;
pub(crate) mod stored;
mod strided;
pub(crate) mod turning;
pub(crate) mod vocabulary;
mod whole;
pub(crate) mod writer;
