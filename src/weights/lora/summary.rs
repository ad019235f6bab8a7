//! What is in a LoRA file, in words and numbers, without any encoder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::report::counted;
use super::roles::Role;
use super::{Lora, LoraReport, Roles};
use crate::weights::Family;

/// Metadata worth showing: anyone can have written them.
const SHOWN: [&str; 9] = [
    "modelspec.architecture",
    "modelspec.title",
    "ss_base_model_version",
    "ss_clip_skip",
    "ss_network_alpha",
    "ss_network_dim",
    "ss_network_module",
    "ss_output_name",
    "sshs_model_hash",
];

/// The longest value that is shown.
const LONGEST: usize = 200;

/// Everything that `inspect` shows of a LoRA.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct LoraSummary {
    /// The file.
    pub path: PathBuf,
    /// The families that it may be for; empty if it is for none that this crate knows.
    pub families: Vec<Family>,
    /// What it is for, in words, and what tells.
    pub made_for: String,
    /// Text modules by what their names begin with (`lora_te1_`, `text_encoder.`…).
    pub modules: BTreeMap<&'static str, usize>,
    /// Kinds of change by their tensors, with how many text modules each.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Ranks, with how many text modules each.
    pub ranks: BTreeMap<usize, usize>,
    /// Stored types, with how many tensors each.
    pub stored: BTreeMap<String, usize>,
    /// Tensors in the file.
    pub n_tensors: usize,
    /// Bytes of the file.
    pub n_bytes: u64,
    /// What its header says, of the keys that matter.
    pub metadata: BTreeMap<String, String>,
    /// What it holds beside text modules, and notes.
    pub report: LoraReport,
    /// See [`Lora::fingerprint`].
    pub fingerprint: String,
}

impl Lora {
    /// What `inspect` shows. Reads nothing but what the fingerprint needs.
    pub fn summary(&self) -> LoraSummary {
        let opened = &self.opened;
        let (modules, origin) = (&opened.modules, &opened.origin);
        let entries = opened.archive.entries.values();
        let prefix = |module: &String| super::spelt(module).map_or("", |spelt| spelt.prefix);
        LoraSummary {
            path: opened.path.clone(),
            families: origin.families.clone(),
            made_for: format!("{}, told by {}", origin.describe(), origin.because),
            modules: counted(modules.keys().map(prefix)),
            kinds: counted(modules.values().map(kind)),
            ranks: counted(modules.values().filter_map(rank)),
            stored: counted(entries.map(|entry| entry.stored.to_string())),
            n_tensors: opened.archive.entries.len(),
            n_bytes: opened.archive.n_bytes(),
            metadata: self.shown_metadata(),
            report: self.report(),
            fingerprint: self.fingerprint(),
        }
    }

    fn shown_metadata(&self) -> BTreeMap<String, String> {
        let shown = SHOWN.iter().filter_map(|key| {
            let value: String = self.metadata(key)?.chars().take(LONGEST).collect();
            Some(((*key).to_owned(), value))
        });
        shown.collect()
    }
}

/// Tensors that tell what a module is, the surest first.
const SIGNS: [(Role, &str); 16] = [
    (Role::Magnitude, "DoRA"),
    (Role::Mid, "LoRA in Tucker's form"),
    (Role::Down, "LoRA"),
    (Role::Up, "LoRA"),
    (Role::HadaW1A, "LoHa"),
    (Role::LokrW1, "LoKr"),
    (Role::LokrW1A, "LoKr"),
    (Role::GloraA1, "GLoRA"),
    (Role::OnInput, "(IA)³"),
    (Role::EmbeddingA, "LoRA of the embedding"),
    (Role::Diff, "full difference"),
    (Role::DiffBias, "full difference"),
    (Role::NormWeight, "full difference"),
    (Role::NormBias, "full difference"),
    (Role::SetWeight, "full weight"),
    (Role::SparseBias, "sparse bias"),
];

/// What a module's tensors make it, by the first that tells.
fn kind(roles: &Roles) -> &'static str {
    if let Some(blocks) = roles.get(&Role::OftBlocks) {
        return if blocks.shape.len() == 4 {
            "BOFT"
        } else {
            "OFT"
        };
    }
    let found = SIGNS.iter().find(|(role, _)| roles.contains_key(role));
    found.map_or("unknown", |(_, name)| name)
}

/// The inner side of the first pair of matrices.
fn rank(roles: &Roles) -> Option<usize> {
    let inner = [Role::Down, Role::HadaW1B, Role::LokrW2B, Role::EmbeddingA];
    let found = inner.iter().find_map(|role| roles.get(role));
    found?.shape.first().copied()
}
