//! What stands in for GGUF in a build without the feature `gguf`.

use std::fs::File;

use super::header::Announced;
use super::sniff;
use crate::error::Result;

/// Says that this build cannot.
pub(crate) fn read(_file: &mut File, _length: u64) -> Result<(Vec<Announced>, Vec<String>)> {
    Err(sniff::not_built("a GGUF file", "gguf"))
}
