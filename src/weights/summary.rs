//! What is in a checkpoint, in words and numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{Checkpoint, Container, Located};
use super::format::archive::{Archive, Entry};
use super::format::decode;
use super::format::sniff::Kind;
use super::layout::{Layout, ignored};
use super::{Embedding, EncoderId, Family, LoadReport, Lora, LoraSummary};
use crate::error::{ErrorKind, Result, noted};

/// Everything that `inspect` shows of a checkpoint.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Summary {
    /// The file or folder.
    pub path: PathBuf,
    /// How it is stored.
    pub container: Container,
    /// The family, if the file decides it.
    pub family: Option<Family>,
    /// What it may serve as, the default first.
    pub candidates: Vec<Family>,
    /// Its text encoders.
    pub encoders: Vec<EncoderSummary>,
    /// Tensors in all its files.
    pub n_tensors: usize,
    /// Bytes of all its files.
    pub n_bytes: u64,
    /// Used, unused and ignored tensors, and notes.
    pub report: LoadReport,
    /// See [`Checkpoint::fingerprint`].
    pub fingerprint: String,
}

/// What a file turned out to be.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Inspected {
    /// A checkpoint, or an encoder of one.
    Checkpoint(Box<Summary>),
    /// A LoRA.
    Lora(Box<LoraSummary>),
    /// A textual inversion.
    Embedding(Box<Embedding>),
}

impl Inspected {
    /// Looks into a file or a folder. Where it is none of these, the error says what it is, if
    /// that is known.
    ///
    /// ```
    /// use sd_conditioner::weights::Inspected;
    /// assert!(Inspected::open("no-such-file", None).is_err());
    /// ```
    pub fn open(path: impl AsRef<Path>, variant: Option<&str>) -> Result<Inspected> {
        let path = path.as_ref();
        let error = match Checkpoint::open_variant(path, variant) {
            Ok(checkpoint) => return Ok(Inspected::Checkpoint(Box::new(checkpoint.summary()))),
            Err(error) => error,
        };
        // What is none of these is told by the checkpoint's error, which knows more kinds of file.
        match Lora::open(path) {
            Ok(lora) => Ok(Inspected::Lora(Box::new(lora.summary()))),
            Err(other) if other.kind() == ErrorKind::Unsupported => Err(other),
            Err(_) => match Embedding::open(path) {
                Ok(embedding) if is_token(embedding.placeholder()) => {
                    Ok(Inspected::Embedding(Box::new(embedding)))
                }
                // What has an embedding's keys is a damaged one.
                Err(damaged) if Embedding::is_meant(path) => Err(damaged),
                Ok(_) | Err(_) => Err(error),
            },
        }
    }
}

/// A lone tensor with a path for its name is a piece of something else.
fn is_token(placeholder: Option<&str>) -> bool {
    placeholder.is_none_or(|name| !name.contains('.'))
}

/// One text encoder of a checkpoint.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderSummary {
    /// Which one.
    pub encoder: EncoderId,
    /// What stands before its tensors' names.
    pub root: String,
    /// Who writes such names.
    pub layout: Layout,
    /// Hidden size.
    pub width: usize,
    /// Transformer blocks in the file.
    pub n_layers: usize,
    /// Rows of the token embedding; more than 49408 are added tokens.
    pub vocabulary: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// True if there is a projection that can be used.
    pub projection: bool,
    /// Stored types, with how many tensors each.
    pub stored: BTreeMap<String, usize>,
    /// Stored bytes.
    pub n_bytes: u64,
    /// What is wrong with it, one line each; empty if it can be loaded.
    pub problems: Vec<String>,
}

pub(super) fn summary(checkpoint: &Checkpoint) -> Summary {
    Summary {
        path: checkpoint.path.clone(),
        container: checkpoint.container,
        family: checkpoint.family(),
        candidates: checkpoint.candidates().to_vec(),
        encoders: checkpoint.encoders.iter().map(encoder_summary).collect(),
        n_tensors: checkpoint
            .archives
            .iter()
            .map(|archive| archive.entries.len())
            .sum(),
        n_bytes: checkpoint
            .archives
            .iter()
            .map(|archive| archive.n_bytes())
            .sum(),
        report: report(checkpoint),
        fingerprint: checkpoint.fingerprint(),
    }
}

fn encoder_summary(located: &Located) -> EncoderSummary {
    let Located { archive, tower, .. } = located;
    let mut stored = BTreeMap::new();
    for entry in used(located) {
        *stored.entry(entry.stored.to_string()).or_default() += 1;
    }
    let problems = tower.problems.iter();
    EncoderSummary {
        encoder: tower.found.encoder,
        root: tower.found.root.clone(),
        layout: tower.layout,
        width: tower.found.dimensions.width,
        n_layers: tower.found.dimensions.n_layers,
        vocabulary: tower.found.dimensions.vocabulary,
        positions: tower.found.dimensions.positions,
        projection: tower.has_projection(),
        stored,
        n_bytes: tower.n_bytes(archive),
        problems: problems.map(ToString::to_string).collect(),
    }
}

fn used(located: &Located) -> impl Iterator<Item = &Entry> {
    located
        .tower
        .used
        .iter()
        .filter_map(|name| located.archive.entries.get(name))
}

/// What became of every tensor.
pub(super) fn report(checkpoint: &Checkpoint) -> LoadReport {
    let mut report = LoadReport {
        notes: checkpoint.notes.clone(),
        ..LoadReport::default()
    };
    for archive in &checkpoint.archives {
        report.notes.extend(archive.notes.iter().cloned());
        let of_archive = |located: &&Located| Arc::ptr_eq(&located.archive, archive);
        let located: Vec<_> = checkpoint.encoders.iter().filter(of_archive).collect();
        sort(&mut report, archive, &located);
    }
    for located in &checkpoint.encoders {
        report.notes.extend(located.tower.notes.iter().cloned());
        scales(&mut report, located);
        without_projection(&mut report, located);
        unproven_projection(&mut report, located);
    }
    report.notes = report.notes.into_iter().map(noted).collect();
    report
}

/// Used, unused (inside an encoder's root), or ignored with a class.
fn sort(report: &mut LoadReport, archive: &Archive, located: &[&Located]) {
    let territory = located
        .iter()
        .flat_map(|located| located.tower.territory(archive));
    let territory: BTreeSet<&str> = territory.collect();
    for (name, entry) in &archive.entries {
        let class = ignored::class_of(name);
        if located
            .iter()
            .any(|located| located.tower.used.contains(name))
        {
            report.used.push(entry.file_name.clone());
        } else if class.is_none() && territory.contains(name.as_str()) {
            report.unused.push(entry.file_name.clone());
        } else {
            *report
                .ignored
                .entry(class.unwrap_or("other").to_owned())
                .or_default() += 1;
        }
        if class == Some("position_ids") {
            report.notes.extend(damaged_positions(archive, entry));
        }
    }
}

/// Merged checkpoints have been through half precision and averages with their position ids too.
fn damaged_positions(archive: &Archive, entry: &Entry) -> Option<String> {
    const LARGEST: u64 = 1 << 12;
    // What is longer holds no positions, and is not read.
    let ids = (entry.n_bytes <= LARGEST).then(|| archive.read_all(entry).ok());
    let ids = ids.flatten();
    let ids = ids.and_then(|bytes| decode::numbers(&bytes, entry.stored).ok());
    let whole = ids.is_some_and(|ids| {
        let mut pairs = ids.iter().zip(0_u16..);
        pairs.all(|(id, expected)| (id.round() - f32::from(expected)).abs() < 0.5)
    });
    (!whole).then(|| {
        format!(
            "`{}` is damaged; positions are counted anew",
            entry.file_name
        )
    })
}

/// Weights of 8 bits whose stored values are not the real ones.
fn scales(report: &mut LoadReport, located: &Located) {
    let scaled = located
        .tower
        .recipes
        .values()
        .filter(|recipe| recipe.scale.is_some())
        .count();
    if scaled > 0 {
        let encoder = located.tower.found.encoder;
        report.notes.push(format!(
            "{encoder}: {scaled} weights of 8 bits are multiplied by their scales"
        ));
    }
}

fn without_projection(report: &mut LoadReport, located: &Located) {
    let tower = &located.tower;
    if tower.found.encoder == EncoderId::OpenClipG && !tower.has_projection() {
        let looked = super::layout::projection::candidates(tower.found.style, &tower.found.root);
        let looked = looked.first().map_or("", |(name, _)| name);
        report.notes.push(format!(
            "no projection (`{looked}`): there is no pooled output"
        ));
    }
}

/// No program that writes GGUF says which way round it keeps the projection, and as it is square, a
/// wrong one fits, too.
fn unproven_projection(report: &mut LoadReport, located: &Located) {
    let Located { archive, tower, .. } = located;
    if archive.kind == Kind::Gguf && tower.has_projection() {
        let encoder = tower.found.encoder;
        report.notes.push(format!(
            "{encoder}: the pooled output depends on a projection from GGUF, whose orientation no \
             writer states; compare it with that of another file before you rely on it"
        ));
    }
}
