//! What became of a LoRA file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::weights::format::archive::Archive;
use crate::weights::{Embedding, EncoderId};

/// What was done with the modules of one file.
#[non_exhaustive]
#[must_use]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraReport {
    /// The file.
    pub path: PathBuf,
    /// The strength for each encoder.
    pub strengths: BTreeMap<EncoderId, f64>,
    /// Modules that change an encoder, with how many for each.
    pub applied: BTreeMap<EncoderId, usize>,
    /// Whose names its text modules have (`kohya`, `diffusers`…), with how many modules each.
    pub names: BTreeMap<&'static str, usize>,
    /// Kinds of change (`LoRA`, `LoKr`, `DoRA`…), with how many modules each.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Modules of text encoders that could not be used.
    pub unmatched: Vec<Unmatched>,
    /// Modules of other parts (`unet`, `transformer`, `t5`…), with how many each.
    pub skipped: BTreeMap<&'static str, usize>,
    /// Tensors that are nothing known.
    pub unknown: Vec<String>,
    /// Names of the embeddings in the file.
    pub embeddings: Vec<String>,
    /// Things a person should know.
    pub notes: Vec<String>,
}

/// A text module without a place.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// As the file spells it.
    pub module: String,
    /// Why it was not used.
    pub reason: String,
}

impl LoraReport {
    /// The report of a file whose modules were not looked at.
    pub(super) fn of(path: &Path, archive: &Archive) -> LoraReport {
        LoraReport {
            path: path.to_owned(),
            embeddings: Embedding::bundled_names(archive),
            notes: archive.notes.clone(),
            ..LoraReport::default()
        }
    }

    /// Notes a text module without a place.
    pub(super) fn leave(&mut self, module: &str, reason: impl Into<String>) {
        self.unmatched.push(Unmatched {
            module: module.to_owned(),
            reason: reason.into(),
        });
    }

    /// True if the file changes no text encoder: many are for the U-Net alone.
    pub fn is_without_effect(&self) -> bool {
        self.applied.is_empty()
    }
}

/// How often each comes.
pub(super) fn counted<K: Ord>(all: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    all.fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one).or_default() += 1;
        counts
    })
}
