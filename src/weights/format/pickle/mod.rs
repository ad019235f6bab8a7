//! PICKLES → NAMED TENSORS, without running any of them. What `torch.save` writes (`.ckpt`, `.bin`,
//! `.pt`) goes in; names, shapes and places come out, as from a safetensors header.
//!
//! A pickle is a program that builds objects. The machine here knows how to build numbers, texts,
//! tuples, lists and dictionaries, and it knows the few names that `torch.save` needs. Every other
//! name becomes a placeholder: it is never looked up, imported or called. What it read, what it
//! stacked and how long it ran is bounded, and no length that a file declares is believed before it
//! was compared with the bytes that are left.
//!
//! Formats: `torch/serialization.py` (`_save`, `_legacy_save`), `torch/_utils.py`
//! (`_rebuild_tensor_v2`, `_v3`), and `pickletools.py` of Python for the opcodes.

mod globals;
mod legacy;
mod machine;
mod opcode;
mod place;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod zip;

use std::fs::File;

use super::header::Announced;
use crate::error::{Error, ErrorKind, Result};

/// Tensors of a file, and what a person should know of how they were found.
pub(crate) type Contents = (Vec<Announced>, Vec<String>);

/// Tensors of a zip archive that `torch.save` of version 1.6 or later wrote.
pub(crate) fn read_zip(file: &mut File, length: u64) -> Result<Contents> {
    zip::read(file, length)
}

/// Tensors of a file that an older `torch.save` wrote.
pub(crate) fn read_legacy(file: &mut File, length: u64) -> Result<Contents> {
    legacy::read(file, length)
}

/// The bytes are no pickle, or none that `torch.save` writes.
fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::FileFormat, message)
}

/// A readable file that this reader will not take.
fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The same, where another file of the same weights helps.
fn unsupported(message: impl Into<String>) -> Error {
    refused(message).hint("give the .safetensors file instead")
}

/// A read that failed; the caller adds the path.
fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, error.to_string()).because(error)
}
