//! What will be written where, decided before a byte is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::Dtype;

use super::names::{self, Spelling};
use super::{Arrangement, Source, config};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::writer::Outline;
use crate::weights::layout::Dimensions;
use crate::weights::layout::names::{LAYERS, PROJECTION, Part, split_numbered};
use crate::weights::{EncoderId, TensorSource};

/// Everything that will be written.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) folders: Vec<PathBuf>,
    pub(super) texts: Vec<(PathBuf, String)>,
    pub(super) files: Vec<File>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
}

/// One safetensors file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) tensors: Vec<Outgoing>,
}

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Index of the encoder.
    pub(super) source: usize,
    pub(super) outline: Outline,
    /// Canonical names, stacked by rows: one, or q, k and v.
    pub(super) parts: Vec<String>,
    pub(super) transposed: bool,
    pub(super) dtype: DType,
}

pub(super) fn plan(
    arrangement: Arrangement,
    dtype: Option<DType>,
    sources: &[Source],
    out: &Path,
) -> Result<Planned> {
    let encoders: Vec<_> = sources.iter().map(|source| source.encoder).collect();
    let spellings = names::spell(arrangement, &encoders)?;
    let mut planned = Planned {
        metadata: BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
        ..Planned::default()
    };
    for (index, (source, spelling)) in sources.iter().zip(&spellings).enumerate() {
        let tower = Kept::of(arrangement, source, &mut planned.notes)?;
        let tensors = tensors(index, source, &tower, spelling, dtype)?;
        let path = planned.place(arrangement, out, source.encoder, encoders.len());
        if arrangement == Arrangement::Diffusers {
            let text = configuration(source, &tower, &tensors);
            let place = path.with_file_name("config.json");
            planned.texts.push((place, text));
        }
        planned.add(path, tensors);
    }
    Ok(planned)
}

/// What of an encoder is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) dimensions: Dimensions,
    pub(super) projected: bool,
}

impl Kept {
    fn of(arrangement: Arrangement, source: &Source, notes: &mut Vec<String>) -> Result<Kept> {
        let tensors = source.tensors.as_ref();
        let mut dimensions = dimensions(tensors)?;
        let mut projected = tensors.info(PROJECTION).is_some();
        // diffusers keeps all layers but one of SD 2's encoder, and no projection (its
        // `convert_open_clip_checkpoint`).
        let encoder = source.encoder;
        let for_sd2 = arrangement == Arrangement::Diffusers && encoder == EncoderId::OpenClipH;
        let full = encoder.full_layers(dimensions.width, dimensions.n_layers);
        if for_sd2 && dimensions.n_layers == full {
            dimensions.n_layers -= 1;
            notes.push("clip_h: its last layer was left out, which SD 2 does not read".to_owned());
        }
        if for_sd2 && projected {
            projected = false;
            notes.push("clip_h: the projection was left out, which SD 2 does not read".to_owned());
        }
        notes.extend(unsaid_activation(arrangement, source));
        Ok(Kept {
            dimensions,
            projected,
        })
    }
}

/// Only `config.json` can say that an encoder has an unusual activation.
fn unsaid_activation(arrangement: Arrangement, source: &Source) -> Option<String> {
    let named = source.tensors.hidden_act()?;
    let unusual = named != source.encoder.usual_activation();
    (unusual && arrangement != Arrangement::Diffusers).then(|| {
        let encoder = source.encoder;
        format!("{encoder}: its activation `{named}` cannot be said in this layout; readers will use another")
    })
}

/// The sizes of a tower that is complete.
fn dimensions(source: &dyn TensorSource) -> Result<Dimensions> {
    let shape = |name: &str| match source.info(name).map(|info| info.shape).as_deref() {
        Some(&[rows, columns]) => Ok((rows, columns)),
        _ => Err(Error::new(ErrorKind::MissingTensor, "not a matrix, or missing").at_tensor(name)),
    };
    let (vocabulary, width) = shape("token_embedding")?;
    let (positions, _) = shape("position_embedding")?;
    let numbers: BTreeSet<usize> = source
        .names()
        .iter()
        .filter_map(|name| split_numbered(name, LAYERS).map(|(number, _)| number))
        .collect();
    Ok(Dimensions {
        width,
        n_layers: numbers.len(),
        vocabulary,
        positions,
    })
}

/// The tensors of one encoder in the order of its layers.
fn tensors(
    index: usize,
    source: &Source,
    kept: &Kept,
    spelling: &Spelling,
    dtype: Option<DType>,
) -> Result<Vec<Outgoing>> {
    let spelt = spelt(kept, spelling)?.into_iter();
    let outgoing = spelt.map(|spelt| outgoing(index, source, spelt, dtype));
    outgoing.collect()
}

/// A tensor of a layout.
struct Spelt {
    name: String,
    /// Canonical names, stacked by rows.
    parts: Vec<String>,
    transposed: bool,
}

/// All tensors that a layout has of an encoder.
fn spelt(kept: &Kept, spelling: &Spelling) -> Result<Vec<Spelt>> {
    let naming = spelling.style.naming();
    let mut all: Vec<Spelt> = Vec::new();
    for canonical in kept.dimensions.names() {
        let unknown = || {
            let message = "this layout has no name for it";
            Error::new(ErrorKind::UnknownLayout, message).at_tensor(&canonical)
        };
        let (name, part) = naming.file_name(&canonical).ok_or_else(unknown)?;
        let name = format!("{}{name}", spelling.root);
        match all.iter_mut().rev().find(|other| other.name == name) {
            Some(fused) if part != Part::Whole => fused.parts.push(canonical),
            _ => all.push(Spelt::new(name, canonical, false)),
        }
    }
    if kept.projected {
        let name = spelling.projection.clone();
        all.push(Spelt::new(name, PROJECTION.to_owned(), spelling.transposed));
    }
    Ok(all)
}

impl Spelt {
    fn new(name: String, canonical: String, transposed: bool) -> Spelt {
        Spelt {
            name,
            parts: vec![canonical],
            transposed,
        }
    }
}

fn outgoing(index: usize, source: &Source, spelt: Spelt, dtype: Option<DType>) -> Result<Outgoing> {
    let Spelt {
        name,
        parts,
        transposed,
    } = spelt;
    let (mut shape, stored) = stacked(source, &parts)?;
    if transposed {
        shape.reverse();
    }
    let dtype = dtype.unwrap_or_else(|| kept_dtype(&stored));
    let outline = Outline {
        name,
        dtype: written(dtype),
        shape,
    };
    Ok(Outgoing {
        source: index,
        outline,
        parts,
        transposed,
        dtype,
    })
}

/// The shape of tensors that are stacked by rows, and the types in which they are stored.
fn stacked(source: &Source, parts: &[String]) -> Result<(Vec<usize>, BTreeSet<String>)> {
    let mut shape = Vec::new();
    let mut stored = BTreeSet::new();
    for part in parts {
        let info = source.tensors.info(part).ok_or_else(|| {
            Error::new(ErrorKind::MissingTensor, "the encoder has no such tensor").at_tensor(part)
        })?;
        stored.insert(info.stored);
        match shape.first_mut() {
            Some(rows) => *rows += info.shape.first().copied().unwrap_or(0),
            None => shape = info.shape,
        }
    }
    Ok((shape, stored))
}

/// The type in which parts are stored, if it is one that every reader knows; f32 otherwise.
fn kept_dtype(stored: &BTreeSet<String>) -> DType {
    let mut all = stored.iter().map(String::as_str);
    match (all.next(), all.next()) {
        (Some("F16"), None) => DType::F16,
        (Some("BF16"), None) => DType::BF16,
        _ => DType::F32,
    }
}

const fn written(dtype: DType) -> Dtype {
    match dtype {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

impl Planned {
    /// The file that an encoder goes into, with its folder.
    fn place(
        &mut self,
        arrangement: Arrangement,
        out: &Path,
        encoder: EncoderId,
        n_encoders: usize,
    ) -> PathBuf {
        match arrangement {
            Arrangement::Diffusers => {
                let folder = out.join(slot(encoder));
                self.folders.push(folder.clone());
                folder.join("model.safetensors")
            }
            Arrangement::Standalone if n_encoders > 1 => {
                self.folders.push(out.to_owned());
                out.join(format!("{encoder}.safetensors"))
            }
            Arrangement::Standalone | Arrangement::SingleFile => out.to_owned(),
        }
    }

    fn add(&mut self, path: PathBuf, mut tensors: Vec<Outgoing>) {
        match self.files.iter_mut().find(|file| file.path == path) {
            Some(file) => file.tensors.append(&mut tensors),
            None => self.files.push(File { path, tensors }),
        }
    }
}

fn configuration(source: &Source, kept: &Kept, tensors: &[Outgoing]) -> String {
    let half = tensors.iter().find(|one| one.dtype != DType::F32);
    let dtype = match half.map(|one| one.dtype) {
        Some(DType::F16) => "float16",
        Some(DType::BF16) => "bfloat16",
        _ => "float32",
    };
    let usual = source.encoder.usual_activation();
    let hidden_act = source.tensors.hidden_act().unwrap_or(usual);
    config::text(kept, hidden_act, dtype)
}

/// diffusers' folder: G is always the second, also where it stands alone (the SDXL refiner).
const fn slot(encoder: EncoderId) -> &'static str {
    match encoder {
        EncoderId::ClipL | EncoderId::OpenClipH => "text_encoder",
        EncoderId::OpenClipG => "text_encoder_2",
    }
}
