//! placeholder
use super::header::Announced;
use crate::error::Result;
use std::fs::File;
pub(crate) fn read(_file: &mut File, _length: u64) -> Result<(Vec<Announced>, Vec<String>)> {
    Err(super::sniff::not_built("a GGUF file", "gguf"))
}
