//! CONDITIONING ↔ FILES. Writes what a U-Net takes under the names that other programs read, and
//! reads it back; a file is written whole or not at all.
//!
//! | module | file | holds |
//! |---|---|---|
//! | [`diffusers`] | `.safetensors` | a pair, under the names of diffusers' arguments |
//! | [`comfyui`] | `.conditioning` | `ComfyUI`'s list of entries with all their attributes |
//! | [`kohya`] | `_te_outputs.npz` | one SDXL prompt, as kohya's sd-scripts cache it |

pub mod comfyui;
pub mod diffusers;
pub mod kohya;
mod npy;
mod npz;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use crate::conditioning::{self, Conditioning};
use crate::error::{Error, ErrorKind, Result, expect_type};
use crate::weights::{self, Family};

/// Writes tensors by name, in the order of their names, with what the file says of itself. Equal
/// input gives equal bytes; the file is written whole or not at all.
pub fn write_tensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let outlines = outlines(tensors);
    weights::write_tensors(path.as_ref(), metadata, &outlines, |index| {
        Ok(tensors[&outlines[index].name].clone())
    })
}

/// The bytes of the file that [`write_tensors`] writes, for whoever writes many files and makes them
/// safe together.
///
/// ```
/// use std::collections::BTreeMap;
/// use sd_conditioner::candle_core::{Device, Tensor};
/// let tensors = BTreeMap::from([("ones".to_owned(), Tensor::new(&[1_f32], &Device::Cpu)?)]);
/// let bytes = sd_conditioner::storage::tensors_to_bytes(&tensors, &BTreeMap::new())?;
/// assert_eq!(bytes[bytes.len() - 4..], 1_f32.to_le_bytes());
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
pub fn tensors_to_bytes(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let outlines = outlines(tensors);
    weights::tensors_to_bytes(metadata, &outlines, |index| {
        Ok(tensors[&outlines[index].name].clone())
    })
}

fn outlines(tensors: &BTreeMap<String, Tensor>) -> Vec<weights::Outline> {
    let outline = |(name, tensor): (&String, &Tensor)| weights::Outline {
        name: name.clone(),
        dtype: tensor.dtype().into(),
        shape: tensor.dims().to_vec(),
    };
    tensors.iter().map(outline).collect()
}

/// A tensor's values as safetensors files hold them: row by row, little-endian, in its own type.
///
/// ```
/// use sd_conditioner::candle_core::{Device, Tensor};
/// let ones = Tensor::new(&[1_f32, 1.0], &Device::Cpu)?;
/// assert_eq!(sd_conditioner::storage::bytes_of(&ones)?, [0, 0, 128, 63, 0, 0, 128, 63]);
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
pub fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    Ok(safetensors::View::data(&tensor).into_owned())
}

/// Refuses tensors with a value that is NaN or infinite. What writes conditionings here asks it; what writes
/// tensors of any kind ([`write_tensors`], [`tensors_to_bytes`], [`bytes_of`]) does not.
///
/// ```
/// use std::collections::BTreeMap;
/// use sd_conditioner::candle_core::{Device, Tensor};
/// let tensor = Tensor::new(&[1_f32, f32::NAN], &Device::Cpu)?;
/// let tensors = BTreeMap::from([("prompt_embeds".to_owned(), tensor)]);
/// let error = sd_conditioner::storage::expect_finite(&tensors).unwrap_err();
/// assert_eq!(error.tensor(), Some("prompt_embeds"));
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
pub fn expect_finite(tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut tensors = tensors.iter();
    tensors.try_for_each(|(name, tensor)| conditioning::expect_finite(name, tensor))
}

/// Writes any bytes, whole or not at all.
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    weights::write_whole(path.as_ref(), bytes)
}

/// `[rows, channels]` as `[1, rows, channels]`; a batch of one stays.
fn batched(tensor: Tensor, dimensions: usize) -> Result<Tensor> {
    let dims = tensor.dims().to_vec();
    if dims.len() + 1 == dimensions {
        return Ok(tensor.unsqueeze(0)?);
    }
    if dims.len() == dimensions && dims.first() == Some(&1) {
        return Ok(tensor);
    }
    let message = format!("shape {dims:?} is not that of one prompt");
    Err(Error::new(ErrorKind::TensorShape, message))
}

/// A tensor of a file in its stored type, with so many dimensions, batch first (0: as many as it
/// has); `None` if the file has none of that name.
fn tensor_of(file: &SafeTensors<'_>, name: &str, dimensions: usize) -> Result<Option<Tensor>> {
    let Ok(view) = file.tensor(name) else {
        return Ok(None);
    };
    let dtype = match view.dtype() {
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        safetensors::Dtype::F32 => DType::F32,
        other => {
            let message = format!("values of type {other}; f32, f16 and bf16 are read");
            return Err(Error::new(ErrorKind::TensorValue, message).at_tensor(name));
        }
    };
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    if dimensions == 0 {
        return Ok(Some(tensor));
    }
    let tensor = batched(tensor, dimensions).map_err(|error| error.at_tensor(name))?;
    Ok(Some(tensor))
}

/// The family that a file's metadata name; without a name the one that takes so many channels (the
/// table in [`Conditioning::context`]).
fn family_of(named: Option<&str>, channels: usize) -> Result<Family> {
    if let Some(named) = named {
        return named.parse().map_err(|error: Error| {
            let message = format!("its metadata's `family`: {}", error.message());
            let hint = error.hint_text().unwrap_or_default().to_owned();
            Error::new(ErrorKind::FileFormat, message).hint(hint)
        });
    }
    match channels {
        768 => Ok(Family::Sd1),
        1024 => Ok(Family::Sd2),
        2048 => Ok(Family::Sdxl),
        1280 => Ok(Family::Refiner),
        _ => {
            let message = format!("hidden states of {channels} channels are no known family's");
            let hint = "768, 1024, 2048 and 1280 are; the metadata `family` names it for others";
            Err(Error::new(ErrorKind::TensorShape, message).hint(hint))
        }
    }
}

/// Refuses types that are not read back.
fn expect_file_type(dtype: DType) -> Result<()> {
    let known = [DType::F32, DType::F16, DType::BF16];
    expect_type("the tensors of this file", dtype, &known)
}

/// Refuses a batch of several prompts.
fn one_prompt(conditioning: &Conditioning) -> Result<()> {
    match conditioning.context().dims() {
        [1, ..] => Ok(()),
        dims => {
            let message = format!("a batch of shape {dims:?}; a file takes one prompt");
            Err(Error::new(ErrorKind::Mismatch, message))
        }
    }
}

fn missing(name: &str, path: &Path) -> Error {
    Error::new(ErrorKind::MissingTensor, "the file has no such tensor")
        .at_tensor(name)
        .at_path(path)
}
