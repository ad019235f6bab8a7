//! What stands in for pickles in a build without the feature `pickle`.

use std::fs::File;

use super::header::Announced;
use super::sniff;
use crate::error::Result;

/// Says that this build cannot.
pub(crate) fn read_zip(_file: &mut File, _length: u64) -> Result<(Vec<Announced>, Vec<String>)> {
    Err(sniff::not_built(
        "a PyTorch file (a zip archive with a pickle)",
        "pickle",
    ))
}

/// Says that this build cannot.
pub(crate) fn read_legacy(_file: &mut File, _length: u64) -> Result<(Vec<Announced>, Vec<String>)> {
    Err(sniff::not_built(
        "a PyTorch file of before version 1.6",
        "pickle",
    ))
}
