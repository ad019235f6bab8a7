//! One file or folder: which text encoders are in it, for which family, and how to read them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::format::archive::{Archive, Entry};
use super::format::folder::Config;
use super::layout::family::Decision;
use super::layout::{Layout, Tower};
use super::opening;
use super::source::TowerSource;
use super::summary::{self, Summary};
use super::{EncoderId, Family, LoadReport, TensorSource};
use crate::error::{Error, ErrorKind, Result};

/// A checkpoint whose headers were read. Clones share the open files.
///
/// Single files of every known layout, files of one encoder, and diffusers folders. What a file is
/// is decided by its bytes, and what its tensors are by their names and shapes; nothing else is
/// looked at. Of a checkpoint with 7 GB, some hundred kilobytes are read.
///
/// ```no_run
/// # fn main() -> sd_conditioner::Result<()> {
/// use sd_conditioner::weights::Checkpoint;
/// let checkpoint = Checkpoint::open("sd_xl_base_1.0.safetensors")?;
/// for encoder in checkpoint.encoders() {
///     let source = checkpoint.encoder(encoder)?;
///     println!("{encoder}: {} tensors", source.names().len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    pub(super) decision: Decision,
    pub(super) encoders: Vec<Located>,
    pub(super) archives: Vec<Arc<Archive>>,
    pub(super) notes: Vec<String>,
    pub(super) container: Container,
}

/// How a checkpoint is stored.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// One safetensors file.
    Safetensors,
    /// One file that `torch.save` wrote: `.ckpt`, `.bin`, `.pt`.
    PyTorch,
    /// One GGUF file.
    Gguf,
    /// A folder with configurations, as diffusers has it.
    Folder,
}

/// A text encoder and the archive that holds it.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) archive: Arc<Archive>,
    pub(super) tower: Tower,
    pub(super) config: Option<Config>,
}

impl Checkpoint {
    /// Opens a file or a folder and reads its headers. In folders, full precision is preferred.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        Checkpoint::open_variant(path, None)
    }

    /// The same with a choice of weights in diffusers folders, such as `fp16`. A single file has no
    /// variants, so there the choice says nothing.
    pub fn open_variant(path: impl AsRef<Path>, variant: Option<&str>) -> Result<Checkpoint> {
        opening::open(path.as_ref(), variant)
    }

    /// The family, if the file decides it. One encoder alone may belong to several.
    pub fn family(&self) -> Option<Family> {
        self.decision.family
    }

    /// Every family that its encoders may serve, alone or with another file's; the default first.
    /// Empty for checkpoints of families that this crate does not know, such as SD 3.
    pub fn candidates(&self) -> &[Family] {
        &self.decision.candidates
    }

    /// The text encoders in it, L before H before G.
    pub fn encoders(&self) -> Vec<EncoderId> {
        self.encoders
            .iter()
            .map(|located| located.tower.found.encoder)
            .collect()
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is stored.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Where and under which names an encoder was found.
    pub fn layout(&self, encoder: EncoderId) -> Option<Layout> {
        let located = self.located(encoder)?;
        Some(located.tower.layout)
    }

    /// `hidden_act` of a folder's `config.json`, which the encoder is given: tensors cannot tell
    /// which activation they were trained with. A configuration that leaves it out means
    /// `quick_gelu`, as in transformers. `None` where there is no configuration; then L has
    /// `quick_gelu`, H and G `gelu` (the exact one).
    pub fn hidden_act(&self, encoder: EncoderId) -> Option<&str> {
        self.located(encoder)?
            .config
            .as_ref()?
            .hidden_act
            .as_deref()
    }

    /// The tensors of one encoder. Everything wrong with it comes in one error; values are looked at
    /// when they are read. H has all layers that the file has, 23 or 24.
    pub fn encoder(&self, encoder: EncoderId) -> Result<Box<dyn TensorSource>> {
        let Some(located) = self.located(encoder) else {
            let there: Vec<_> = self
                .encoders()
                .iter()
                .map(|encoder| encoder.tag())
                .collect();
            let message = format!(
                "no text encoder {encoder} in it; there is {}",
                there.join(" and ")
            );
            return Err(Error::new(ErrorKind::MissingTensor, message).at_path(&self.path));
        };
        located.tower.check(&located.archive)?;
        Ok(Box::new(TowerSource::new(located)))
    }

    /// True if the encoder has a projection, which pooled output of G needs.
    pub fn has_projection(&self, encoder: EncoderId) -> bool {
        self.located(encoder)
            .is_some_and(|located| located.tower.has_projection())
    }

    /// What became of every tensor of the file.
    pub fn report(&self) -> LoadReport {
        summary::report(self)
    }

    /// What `inspect` shows.
    pub fn summary(&self) -> Summary {
        summary::summary(self)
    }

    /// A cheap identity: SHA-256, in hexadecimal, of names, types, shapes and places of the
    /// encoders' tensors, the length of the files, and 4 KiB out of up to 16 matrices of each
    /// encoder, spread over its depth. Trained, merged and pruned checkpoints differ in those; it is
    /// not a hash of the whole content. What cannot be read any more counts as empty.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for located in &self.encoders {
            located.identify(&mut hash);
        }
        let mut text = String::new();
        for byte in hash.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    pub(super) fn located(&self, encoder: EncoderId) -> Option<&Located> {
        self.encoders
            .iter()
            .find(|located| located.tower.found.encoder == encoder)
    }
}

/// Matrices of an encoder (or a LoRA) of which a fingerprint takes a sample, and how much of each.
pub(super) const SAMPLES: usize = 16;
pub(super) const SAMPLE_BYTES: u64 = 4096;

impl Located {
    /// Adds to a fingerprint what is known of the tensors, and a sample of their values.
    fn identify(&self, hash: &mut Sha256) {
        let Located { archive, tower, .. } = self;
        hash.update(format!("{} {}\n", tower.found.encoder, archive.n_bytes()));
        let entry = |name: &String| archive.entries.get(name);
        let used: Vec<&Entry> = tower.used.iter().filter_map(entry).collect();
        for one in &used {
            let (name, stored, shape) = (&one.file_name, one.stored, &one.shape);
            hash.update(format!(
                "{name} {stored} {shape:?} {} {}\n",
                one.part, one.start
            ));
        }
        let matrices: Vec<&Entry> = used
            .into_iter()
            .filter(|one| one.shape.len() == 2)
            .collect();
        for one in spread(&matrices, SAMPLES) {
            let sample = archive.read(one, 0..one.n_bytes.min(SAMPLE_BYTES));
            hash.update(sample.unwrap_or_default());
        }
    }
}

/// Up to `count` of all, at even distances, first and last included.
pub(super) fn spread<T: Copy>(all: &[T], count: usize) -> impl Iterator<Item = T> {
    let count = count.min(all.len());
    let steps = count.saturating_sub(1).max(1);
    (0..count).map(move |step| all[step * (all.len() - 1) / steps])
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn samples_are_spread() {
        let taken = |length: usize| {
            let all: Vec<usize> = (0..length).collect();
            spread(&all, 4).collect::<Vec<_>>()
        };
        assert!(taken(0).is_empty());
        assert_eq!(taken(1), [0]);
        assert_eq!(taken(3), [0, 1, 2]);
        assert_eq!(taken(100), [0, 33, 66, 99]);
    }
}
