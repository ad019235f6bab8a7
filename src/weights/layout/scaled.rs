//! Weights of 8 bits with a scale beside them: the real weight is the stored one times the scale.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;
use serde::Deserialize;

use super::Tower;
use crate::error::{Error, ErrorKind, Result, named};
use crate::weights::format::archive::{Archive, Entry};
use crate::weights::format::stored::Stored;

/// The file-level mark of ComfyUI's scaled files.
const MARK: &str = "scaled_fp8";

/// The mark of one module in newer ones.
const NOTE: &str = ".comfy_quant";

/// The longest such note that is read; real ones have some dozen bytes.
const MAX_NOTE: u64 = 1 << 12;

/// What ComfyUI calls the scale, older and newer.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// Finds the scales of a tower's tensors and what is wrong with them.
pub(super) fn add(tower: &mut Tower, archive: &Archive) -> Result<()> {
    let marked = is_marked(archive, &tower.found.root);
    let canonical_names: Vec<String> = tower.recipes.keys().cloned().collect();
    let mut claimed = BTreeSet::new();
    for canonical in canonical_names {
        let scale = add_scale(tower, archive, &canonical);
        if marked && scale.is_none() {
            miss_scale(tower, &canonical);
        }
        claimed.extend(scale);
    }
    orphans(tower, archive, &claimed);
    formats(tower, archive)
}

/// Finds the scale of one tensor; its name if there is one.
fn add_scale(tower: &mut Tower, archive: &Archive, canonical: &str) -> Option<String> {
    let recipe = tower.recipes.get_mut(canonical)?;
    let name = scale_names(&recipe.name)
        .into_iter()
        .find(|name| archive.entries.contains_key(name))?;
    let scale = &archive.entries[&name];
    match fault(&recipe.entry, scale) {
        Some(text) => tower.problem(ErrorKind::TensorValue, scale.file_name.clone(), text),
        None => recipe.scale = Some(scale.clone()),
    }
    tower.used.insert(name.clone());
    Some(name)
}

/// Notes that a tensor of a marked file has no scale, if it needs one.
fn miss_scale(tower: &mut Tower, canonical: &str) {
    let Some(recipe) = tower.recipes.get(canonical) else {
        return;
    };
    let entry = recipe.entry.clone();
    let needed = entry.shape.len() == 2 && !canonical.ends_with("_embedding");
    if needed && entry.stored.is_fp8() {
        let text = format!(
            "{} with a `{MARK}` mark in the file, but its scale is missing",
            entry.stored
        );
        tower.problem(ErrorKind::MissingTensor, entry.file_name, text);
    }
}

/// The module that a weight belongs to.
fn module_of(name: &str) -> &str {
    let stem = name.strip_suffix(".weight");
    stem.or_else(|| name.strip_suffix("_weight"))
        .unwrap_or(name)
}

/// `fc1.weight` may have `fc1.scale_weight`, `fc1.weight_scale`; `in_proj_weight` likewise.
fn scale_names(name: &str) -> Vec<String> {
    let module = module_of(name);
    let mut names: Vec<_> = SCALES
        .iter()
        .map(|scale| format!("{module}.{scale}"))
        .collect();
    names.push(format!("{name}_scale"));
    names
}

/// A mark holds for every tower below the place where it stands.
fn is_marked(archive: &Archive, root: &str) -> bool {
    let names = archive.entries.keys();
    let mut places = names.filter_map(|name| name.strip_suffix(MARK));
    places.any(|place| (place.is_empty() || place.ends_with('.')) && root.starts_with(place))
}

/// What is wrong with a scale, by the header alone.
fn fault(weight: &Entry, scale: &Entry) -> Option<String> {
    if !weight.stored.is_fp8() {
        return Some(format!(
            "a scale for a weight of type {}, which needs none",
            weight.stored
        ));
    }
    if !matches!(
        scale.stored,
        Stored::Plain(Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
    ) {
        return Some(format!("a scale of type {}", scale.stored));
    }
    let rows = weight.shape.first().copied().unwrap_or(1);
    let right = matches!(&scale.shape[..], [] | [1] | [1, 1])
        || scale.shape == [rows]
        || scale.shape == [rows, 1];
    (!right).then(|| {
        format!(
            "scale shape {:?}, expected one value or {rows}",
            scale.shape
        )
    })
}

/// Scales whose weight is not there or not known.
fn orphans(tower: &mut Tower, archive: &Archive, claimed: &BTreeSet<String>) {
    let is_scale = |name: &&str| {
        SCALES.iter().any(|scale| {
            name.strip_suffix(scale)
                .is_some_and(|rest| rest.ends_with('.'))
        })
    };
    let names = tower
        .territory(archive)
        .filter(is_scale)
        .filter(|name| !claimed.contains(*name));
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in names {
        let text = "a scale without a weight of 8 bits".to_owned();
        tower.problem(ErrorKind::TensorValue, name, text);
    }
}

#[derive(Deserialize)]
struct Note {
    format: String,
}

/// `comfy_quant` tensors hold JSON that names the format; only 8-bit floating point is known, and such
/// weights have a scale.
fn formats(tower: &mut Tower, archive: &Archive) -> Result<()> {
    let unscaled = unscaled(tower);
    let names = tower.territory(archive).filter(|name| name.ends_with(NOTE));
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in names {
        let entry = &archive.entries[&name];
        let format = format_of(archive, entry)?;
        if !format.starts_with("float8") {
            let text = format!("the quantization format `{format}` is not supported");
            tower.problem(ErrorKind::Unsupported, entry.file_name.clone(), text);
        } else if let Some(weight) = name.strip_suffix(NOTE).and_then(|name| unscaled.get(name)) {
            let text = format!("`{format}` with a `{NOTE}` mark, but its scale is missing");
            tower.problem(ErrorKind::MissingTensor, weight.clone(), text);
        }
    }
    Ok(())
}

/// Modules with a weight of 8 bits and no scale, with that weight's name in the file.
fn unscaled(tower: &Tower) -> BTreeMap<String, String> {
    let recipes = tower.recipes.values();
    let bare = recipes.filter(|recipe| recipe.scale.is_none() && recipe.entry.stored.is_fp8());
    bare.map(|recipe| {
        let module = module_of(&recipe.name).to_owned();
        (module, recipe.entry.file_name.clone())
    })
    .collect()
}

fn format_of(archive: &Archive, entry: &Entry) -> Result<String> {
    let bytes = archive.read(entry, 0..entry.n_bytes.min(MAX_NOTE))?;
    let note: Note = serde_json::from_slice(&bytes).map_err(|error| {
        let error = Error::new(
            ErrorKind::TensorValue,
            format!("not a quantization note: {error}"),
        );
        error
            .at_path(archive.path_of(entry))
            .at_tensor(&entry.file_name)
    })?;
    Ok(named(&note.format))
}
