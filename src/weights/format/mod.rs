//! BYTES → NAMED TENSORS. What a file is, where its tensors lie, and the values at one place of it.

pub(crate) mod archive;
pub(crate) mod decode;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod header;
pub(crate) mod shards;
pub(crate) mod sniff;
pub(crate) mod vocabulary;
pub(crate) mod writer;
