//! A pair of conditionings → a safetensors file, whole or not at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use safetensors::View as _;
use sd_conditioner::candle_core::{self, DType, Device, Tensor};
use sd_conditioner::{Conditioning, Family, Guidance};
use serde_json::{Map, Value, json};

use crate::job::Side;
use crate::schedules::PassConditionings;

/// Header and tensors start at a multiple of this (the format's own rule).
const ALIGNMENT: usize = 8;

const TIME_IDS: &str = "time_ids";

/// The tensors of a file by name, batch first, on the CPU.
pub(crate) type Named = BTreeMap<String, Tensor>;

/// The tensors that a U-Net of this family takes. `guidance` holds f32, so that nothing is rounded
/// before the last step.
pub(crate) fn of_pair(guidance: &Guidance, dtype: DType) -> anyhow::Result<Named> {
    let mut named = Named::new();
    for (side, made) in [
        (Side::Positive, guidance.positive()),
        (Side::Negative, guidance.negative()),
    ] {
        for (name, tensor) in of_one(made)? {
            let name = format!("{}{name}", side.prefix());
            named.insert(name, rounded(&tensor, dtype)?);
        }
    }
    Ok(named)
}

/// The same for every step range of every pass: `prompt_embeds.0`, `prompt_embeds.1`… The size
/// numbers do not change with the step and have no number.
pub(crate) fn of_passes(passes: &[PassConditionings], dtype: DType) -> anyhow::Result<Named> {
    let mut named = Named::new();
    for PassConditionings { pass, sides } in passes {
        for (side, timeline) in sides {
            for (index, entry) in timeline.entries().enumerate() {
                for (name, tensor) in of_one(&entry.conditioning)? {
                    let number = match name {
                        TIME_IDS => String::new(),
                        _ => format!(".{index}"),
                    };
                    let name = format!("{}{}{name}{number}", pass.prefix, side.prefix());
                    named.insert(name, rounded(&tensor, dtype)?);
                }
            }
        }
    }
    Ok(named)
}

fn rounded(tensor: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
    tensor
        .to_device(&Device::Cpu)?
        .to_dtype(dtype)?
        .contiguous()
}

fn of_one(side: &Conditioning) -> anyhow::Result<Vec<(&'static str, Tensor)>> {
    let mut tensors = vec![("prompt_embeds", side.context().clone())];
    match side.family() {
        // ComfyUI hands on a pooled vector for these too, and their U-Nets do not take it.
        Family::Sd1 | Family::Sd2 => (),
        Family::Sdxl | Family::Refiner => {
            let vector = side.vector()?;
            let rest = [
                ("pooled_prompt_embeds", side.pooled().cloned()),
                (TIME_IDS, side.time_ids().cloned()),
                ("vector", vector),
            ];
            for (name, tensor) in rest {
                let tensor = tensor.with_context(|| format!("{} made no {name}", side.family()))?;
                tensors.push((name, tensor));
            }
        }
    }
    Ok(tensors)
}

/// Writes the file beside its place and moves it there when it is whole.
pub(crate) fn write(
    path: &Path,
    tensors: &Named,
    metadata: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    write_whole(path, |file| fill(file, tensors, metadata))
}

/// The same for any file.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let temporary = beside(path)?;
    let written = filled(&temporary, fill).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Refuses a place that cannot take a file, before anything long is begun.
pub(crate) fn check_place(path: &Path) -> anyhow::Result<()> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        bail!("{}: there is no such folder to write to", folder.display());
    }
    if path.is_dir() || path.file_name().is_none() {
        bail!("{}: a folder, and a file is to be written", path.display());
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(path);
    if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    }
}

fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path
        .file_name()
        .with_context(|| format!("{}: not the name of a file", path.display()))?;
    let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    Ok(folder_of(path).join(name))
}

fn filled(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    fill(&mut file)?;
    file.into_inner()?.sync_all()
}

fn fill(
    file: &mut BufWriter<File>,
    tensors: &Named,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    file.write_all(&header(tensors, metadata)?)?;
    for tensor in tensors.values() {
        let bytes: Cow<'_, [u8]> = tensor.data();
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Eight bytes of length, then JSON. Written here because the crate safetensors keeps metadata in
/// a hash map: equal input is to give equal bytes.
fn header(tensors: &Named, metadata: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for (name, tensor) in tensors {
        let end = start + tensor.data_len();
        let dtype: Value = serde_json::to_value(safetensors::View::dtype(tensor))?;
        let entry = json!({ "dtype": dtype, "shape": tensor.dims(), "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&entries)?;
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}
