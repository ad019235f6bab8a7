//! LORA FILES → CHANGES OF ENCODERS. A file of any naming and kind goes in; what it adds to an
//! encoder's tensors comes out, and a report of what was left.

mod adapter;
mod factor;
mod family;
mod fit;
mod folder;
mod identity;
mod kinds;
mod names;
mod report;
mod roles;
mod scale;
mod summary;

pub(crate) use fit::{Base, Fitted, changed};
pub use folder::LoraFolder;
pub use report::{LoraReport, Unmatched};
pub use summary::LoraSummary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use self::adapter::Adapters;
use self::family::Origin;
use self::names::{Class, class_of, spelt};
use self::report::counted;
use self::roles::Role;
use super::format::archive::{Archive, Entry};
use super::format::file;
use super::{Embedding, Family};
use crate::error::{Error, ErrorKind, Result, named, noted};

/// A LoRA file whose header was read. Cheap to clone.
///
/// | | what is read |
/// |---|---|
/// | names | sd-scripts (`lora_te_`, `lora_te1_`, `lora_te2_`), diffusers old and new (`text_encoder.`), `ComfyUI`, OMI, PEFT adapters; with `text_model` in the path and without |
/// | kinds | `LoRA` and `LoCon`, `LoHa`, `LoKr`, `GLoRA`, `DoRA`, Diag-OFT, (IA)³, whole differences of weights, biases and norms |
/// | factor | α / r from `alpha`; from PEFT's configuration α / r or α / √r (`use_rslora`); else 1 |
///
/// The U-Net's modules are counted and left. Nothing is read of a matrix before its shape is known to
/// fit to the encoder.
///
/// ```no_run
/// # fn main() -> sd_conditioner::Result<()> {
/// use sd_conditioner::{Conditioner, weights::Lora};
/// let text = Conditioner::open("sd_xl_base_1.0.safetensors")?;
/// let film = Lora::open("loras/film.safetensors")?;
/// let styled = text.with_loras(&[film.at(0.8)])?;
/// println!("{:?}", styled.lora_reports()[0].applied);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lora {
    opened: Arc<Opened>,
}

/// A LoRA with its strengths.
#[must_use]
#[derive(Clone, Debug)]
pub struct WeightedLora {
    lora: Lora,
    strength: f64,
    strength_2: Option<f64>,
    any_family: bool,
}

/// One opened file and its strengths. It does not hold the file open.
#[derive(Clone, Debug)]
pub(crate) struct LoraKey {
    opened: Weak<Opened>,
    strengths: [u64; 2],
    any_family: bool,
}

impl PartialEq for LoraKey {
    fn eq(&self, other: &LoraKey) -> bool {
        let LoraKey {
            opened,
            strengths,
            any_family,
        } = self;
        // An address is not given to another file while a weak reference to it is alive.
        Weak::ptr_eq(opened, &other.opened)
            && *strengths == other.strengths
            && *any_family == other.any_family
    }
}

/// Text modules by name.
type Modules = BTreeMap<String, Roles>;

/// Tensors of a module.
type Roles = BTreeMap<Role, Entry>;

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    archive: Archive,
    modules: Modules,
    adapters: Adapters,
    origin: Origin,
    report: LoraReport,
}

/// What an adapter's folder may hold, the first that is there.
const IN_FOLDER: [&str; 4] = [
    "adapter_model.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
];

/// How many names an error spells out.
const SPELT_OUT: usize = 3;

impl Lora {
    /// Opens a file, or a folder as PEFT and diffusers save it, and reads the header. An error if
    /// nothing in it belongs to a LoRA. What is wrong with single modules shows when it is used.
    pub fn open(path: impl AsRef<Path>) -> Result<Lora> {
        let path = path.as_ref();
        let mut in_folder = IN_FOLDER.iter().map(|name| path.join(name));
        let file = in_folder.find(|file| path.is_dir() && file::is_there(file));
        let opened = Opened::open(file.as_deref().unwrap_or(path));
        Ok(Lora {
            opened: Arc::new(opened.map_err(|error| error.at_path(path))?),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }

    /// The families that it may have been trained for, judged by names, sizes and metadata; empty
    /// if it is for none that this crate knows.
    pub fn families(&self) -> &[Family] {
        &self.opened.origin.families
    }

    /// What can be said of it without encoders: what it holds beside text modules, and notes.
    pub fn report(&self) -> LoraReport {
        self.opened.report.clone()
    }

    /// The names of its text modules, as the file spells them, sorted.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.opened.modules.keys().map(String::as_str)
    }

    /// What its header says in `key`, such as `ss_clip_skip` or `ss_network_dim`. Anyone can have
    /// written that.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.opened.archive.metadata.get(key).map(String::as_str)
    }

    /// A cheap identity of the file: SHA-256, in hexadecimal, of its length, the names, types,
    /// shapes and places of its tensors, and 4 KiB of up to 16 matrices.
    pub fn fingerprint(&self) -> String {
        identity::fingerprint(&self.opened.archive)
    }

    /// The textual inversions inside it (`bundle_emb.<name>.…`), each by its own name. They may be
    /// named in prompts: see [`Embeddings::with_lora`](crate::conditioner::Embeddings::with_lora).
    pub fn embeddings(&self) -> Result<Vec<Embedding>> {
        Embedding::bundled(&self.opened.archive).map_err(|error| error.at_path(self.path()))
    }

    /// The LoRA at one strength for all encoders; 1 is as it was trained, 0 switches it off,
    /// negative ones turn it round.
    pub fn at(&self, strength: f64) -> WeightedLora {
        WeightedLora {
            lora: self.clone(),
            strength,
            strength_2: None,
            any_family: false,
        }
    }

    /// The LoRA at a strength for each encoder: SDXL's first and second.
    pub fn at_each(&self, strength: f64, strength_2: f64) -> WeightedLora {
        WeightedLora {
            strength_2: Some(strength_2),
            ..self.at(strength)
        }
    }
}

impl WeightedLora {
    /// Uses it even where it seems to be made for another family. Shapes must fit all the same.
    pub fn for_any_family(mut self) -> WeightedLora {
        self.any_family = true;
        self
    }

    /// The file.
    pub fn lora(&self) -> &Lora {
        &self.lora
    }

    /// Tells it and its strengths apart from others for certain, for as long as the key lives.
    pub(crate) fn key(&self) -> LoraKey {
        LoraKey {
            opened: Arc::downgrade(&self.lora.opened),
            strengths: [self.strength, self.strength_2.unwrap_or(self.strength)].map(f64::to_bits),
            any_family: self.any_family,
        }
    }

    /// Tells it and its strengths apart from others.
    pub(crate) fn identity(&self) -> String {
        let (content, strength) = (self.lora.fingerprint(), self.strength);
        let strength_2 = self.strength_2.unwrap_or(strength);
        format!("+lora:{content}@{strength}:{strength_2}")
    }
}

impl Opened {
    fn open(path: &Path) -> Result<Opened> {
        let archive = Archive::open(path)?;
        let mut report = LoraReport::of(path, &archive);
        refuse_old(&archive)?;
        let modules = sort(&archive, &mut report)?;
        refuse_others(&archive)?;
        if modules.is_empty() {
            let note = "there are no modules of text encoders in it, so it changes no prompt";
            report.notes.push(note.to_owned());
        }
        let mut opened = Opened {
            path: path.to_owned(),
            adapters: Adapters::read(path, &archive.metadata, &mut report.notes)?,
            archive,
            modules,
            origin: Origin::default(),
            report,
        };
        opened.origin = family::origin(&opened);
        let notes = std::mem::take(&mut opened.report.notes);
        opened.report.notes = notes.into_iter().map(noted).collect();
        Ok(opened)
    }
}

/// Puts every tensor to its module, or into the report.
fn sort(archive: &Archive, report: &mut LoraReport) -> Result<Modules> {
    let (mut modules, mut skipped) = (Modules::new(), BTreeSet::new());
    for (name, entry) in &archive.entries {
        let (module, role) =
            roles::split(name).map_or((name.as_str(), None), |(module, role)| (module, Some(role)));
        match (spelt(module), role) {
            (Some(_), Some(role)) => {
                let roles = modules.entry(module.to_owned()).or_default();
                add(roles, role, entry).map_err(|error| error.at_tensor(name))?;
            }
            (Some(_), None) => report.leave(name, "no tensor of a known kind of LoRA"),
            (None, _) => match class_of(module) {
                Class::Skipped(class) => {
                    skipped.insert((class, module));
                }
                Class::Embedding => {} // named below
                Class::Unknown => report.unknown.push(name.clone()),
            },
        }
    }
    let spelt = modules.keys().filter_map(|module| spelt(module));
    report.names = counted(spelt.map(|spelt| spelt.scheme.name));
    report.skipped = counted(skipped.into_iter().map(|(class, _)| class));
    Ok(modules)
}

/// Puts a tensor to the others of its module.
fn add(roles: &mut Roles, role: Role, entry: &Entry) -> Result<()> {
    let several = matches!(role, Role::HadaT | Role::SparseBias);
    if roles.insert(role, entry.clone()).is_some() && !several {
        let message = "the module has two tensors of this kind";
        return Err(Error::new(ErrorKind::Lora, message));
    }
    Ok(())
}

/// `text_encoder:0:up`, the first `LoRA`s of all: their tensors are numbered, not named.
fn refuse_old(archive: &Archive) -> Result<()> {
    let numbered = |name: &&String| {
        (name.starts_with("text_encoder:") || name.starts_with("unet:"))
            && (name.ends_with(":up") || name.ends_with(":down"))
    };
    match archive.entries.keys().find(numbered) {
        None => Ok(()),
        Some(name) => {
            let message = "a LoRA of cloneofsimo's lora of 2022, whose tensors are numbered";
            let error = Error::new(ErrorKind::Unsupported, message).at_tensor(name);
            Err(error.hint("convert it with that program's own tools"))
        }
    }
}

/// An error if no tensor is of a kind that only a `LoRA` has.
fn refuse_others(archive: &Archive) -> Result<()> {
    let names = archive.entries.keys();
    let mut roles = names.filter_map(|name| Some(roles::split(name)?.1));
    if roles.all(|role| role == Role::Weight) {
        return Err(no_lora(archive));
    }
    Ok(())
}

fn no_lora(archive: &Archive) -> Error {
    let names = archive.entries.keys().take(SPELT_OUT);
    let names: Vec<String> = names.map(|name| format!("`{}`", named(name))).collect();
    let (count, names) = (archive.entries.len(), names.join(", "));
    let message = format!("this is no LoRA: {count} tensors such as {names}");
    let error = Error::new(ErrorKind::Lora, message);
    if archive.has_below("bundle_emb.") || archive.entries.contains_key("emb_params") {
        return error.hint("it is an embedding: put it into the folder of embeddings");
    }
    error.hint("a LoRA has names such as lora_te_… or text_encoder.….lora_A.weight")
}
