//! NAMED TENSORS → BYTES. A safetensors file, whole or not at all, with one tensor in memory at a
//! time.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, View as _};
use serde_json::{Map, Value, json};

use super::whole::whole;
use crate::error::{Error, ErrorKind, Result};

/// Header and tensors start at a multiple of this (the format's own rule).
const ALIGNMENT: usize = 8;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Outline {
    fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes the file beside its place and moves it there when it is whole. Equal input gives equal
/// bytes: tensors lie in the order of `outlines`. `tensor` is asked for each of them by number.
pub(crate) fn write(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    outlines: &[Outline],
    tensor: impl FnMut(usize) -> Result<Tensor>,
) -> Result<()> {
    let header = header(metadata, outlines).map_err(|error| Error::io(path, error.into()))?;
    whole(path, |file| {
        file.write_all(&header)
            .map_err(|error| Error::io(path, error))?;
        fill(file, outlines, tensor).map_err(|error| error.at_path(path))
    })
}

/// The bytes of such a file, in memory. Equal input gives equal bytes.
pub(crate) fn to_bytes(
    metadata: &BTreeMap<String, String>,
    outlines: &[Outline],
    tensor: impl FnMut(usize) -> Result<Tensor>,
) -> Result<Vec<u8>> {
    let header = header(metadata, outlines);
    let mut bytes = header.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    bytes.reserve_exact(outlines.iter().map(Outline::n_bytes).sum());
    fill(&mut bytes, outlines, tensor)?;
    Ok(bytes)
}

/// Writes what is in memory already, whole or not at all.
pub(crate) fn bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    whole(path, |file| {
        let written = file.write_all(bytes);
        written.map_err(|error| Error::io(path, error))
    })
}

fn fill(
    file: &mut impl Write,
    outlines: &[Outline],
    mut tensor: impl FnMut(usize) -> Result<Tensor>,
) -> Result<()> {
    for (number, outline) in outlines.iter().enumerate() {
        let tensor = tensor(number)?.to_device(&Device::Cpu)?.contiguous()?;
        check_outline(&tensor, outline)?;
        let written = file.write_all(&tensor.data());
        written.map_err(|error| {
            Error::new(ErrorKind::Io, error.to_string())
                .because(error)
                .at_tensor(&outline.name)
        })?;
    }
    Ok(())
}

/// An error unless a tensor is as it was announced.
fn check_outline(tensor: &Tensor, outline: &Outline) -> Result<()> {
    let dtype = safetensors::View::dtype(tensor);
    if (tensor.dims(), dtype) == (&outline.shape[..], outline.dtype) {
        return Ok(());
    }
    let message = format!(
        "{:?} of {} was announced, {:?} of {dtype} came",
        outline.shape,
        outline.dtype,
        tensor.dims()
    );
    Err(Error::new(ErrorKind::TensorShape, message).at_tensor(&outline.name))
}

/// Eight bytes of length, then JSON. Written here because the crate safetensors keeps metadata in
/// a hash map, which would give other bytes each time.
fn header(
    metadata: &BTreeMap<String, String>,
    outlines: &[Outline],
) -> serde_json::Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut start = 0;
    for outline in outlines {
        let end = start + outline.n_bytes();
        let dtype: Value = serde_json::to_value(outline.dtype)?;
        let entry = json!({ "dtype": dtype, "shape": outline.shape, "data_offsets": [start, end] });
        entries.insert(outline.name.clone(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&entries)?;
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}
