//! The names of diffusers' pipeline arguments, in a safetensors file.
//!
//! | tensor | shape |
//! |---|---|
//! | `prompt_embeds`, `negative_prompt_embeds` | `[1, 77·n, channels]` |
//! | `pooled_prompt_embeds`, `negative_pooled_prompt_embeds` | `[1, 1280]`, SDXL and its refiner |
//! | `time_ids`, `negative_time_ids` | `[1, 6]` or `[1, 5]` |
//! | `vector`, `negative_vector` | `[1, 2816]` or `[1, 2560]`: pooled and embedded sizes |
//!
//! `time_ids` are f32 whatever type the others have: 16 bits do not hold every size (3001 would be 3000).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use super::{
    expect_file_type, expect_finite, family_of, missing, one_prompt, tensor_of, write_tensors,
};
use crate::conditioning::Conditioning;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{Family, read_whole};

/// A prompt and its negative, as files hold them: the negative may be missing, or have another
/// length.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The prompt's.
    pub positive: Conditioning,
    /// The negative prompt's.
    pub negative: Option<Conditioning>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
}

/// Tensors by the names in the table above, in the type and on the device that they have; sizes in
/// f32. `vector` is left out where there are no size numbers.
pub fn tensors(conditioning: &Conditioning, prefix: &str) -> Result<Vec<(String, Tensor)>> {
    let mut tensors = vec![("prompt_embeds", conditioning.context().clone())];
    match conditioning.family() {
        // ComfyUI hands on a pooled vector for these too, and their U-Nets do not take it.
        Family::Sd1 | Family::Sd2 => {}
        Family::Sdxl | Family::Refiner => {
            let vector = conditioning.vector()?;
            let sizes = conditioning.time_ids();
            let sizes = sizes.map(|ids| ids.to_dtype(DType::F32)).transpose()?;
            let rest = [
                ("pooled_prompt_embeds", conditioning.pooled().cloned()),
                ("time_ids", sizes),
                ("vector", vector),
            ];
            tensors.extend(
                rest.into_iter()
                    .filter_map(|(name, one)| Some((name, one?))),
            );
        }
    }
    let named = tensors
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor));
    Ok(named.collect())
}

/// Writes both in `dtype` (f32, f16 or bf16; sizes always in f32) with `metadata`, to which the family is
/// added. Equal input gives equal bytes.
///
/// # Errors
///
/// Another type, a batch, sides of two families, values that are not finite in `dtype`, or the file system.
pub fn save(path: impl AsRef<Path>, saved: &Saved, dtype: DType) -> Result<()> {
    let path = path.as_ref();
    let named = named(saved, dtype).map_err(|error| error.at_path(path))?;
    let mut metadata = saved.metadata.clone();
    let family = saved.positive.family().name().to_owned();
    metadata.insert("family".to_owned(), family);
    write_tensors(path, &named, &metadata)
}

/// The tensors of both sides.
fn named(saved: &Saved, dtype: DType) -> Result<BTreeMap<String, Tensor>> {
    expect_file_type(dtype)?;
    expect_one_family(saved)?;
    let mut named: BTreeMap<String, Tensor> = BTreeMap::new();
    let negative = saved.negative.as_ref().map(|side| (side, "negative_"));
    for (side, prefix) in [(&saved.positive, "")].into_iter().chain(negative) {
        one_prompt(side)?;
        let side = side.to_device(&Device::Cpu)?.to_dtype(dtype);
        let side = side.map_err(|error| in_file(error, prefix))?;
        named.extend(tensors(&side, prefix)?);
    }
    expect_finite(&named)?;
    Ok(named)
}

/// An error about a part of a side, with the name that the part has in the file.
fn in_file(error: Error, prefix: &str) -> Error {
    let name = match error.tensor() {
        Some("context") => "prompt_embeds",
        Some("pooled") => "pooled_prompt_embeds",
        _ => return error,
    };
    let named = Error::new(error.kind(), error.message()).at_tensor(format!("{prefix}{name}"));
    match error.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

/// The file names one family, and both sides are read as its.
fn expect_one_family(saved: &Saved) -> Result<()> {
    let positive = saved.positive.family();
    match saved.negative.as_ref().map(Conditioning::family) {
        Some(negative) if negative != positive => {
            let message = format!(
                "the positive side is {positive}'s and the negative one {negative}'s; a file is of one family"
            );
            Err(Error::new(ErrorKind::Mismatch, message))
        }
        _ => Ok(()),
    }
}

/// Reads what [`save`] wrote, or any file with `prompt_embeds`, in the stored type.
///
/// The family is what the metadata name; without them it follows from the channels.
pub fn load(path: impl AsRef<Path>) -> Result<Saved> {
    let path = path.as_ref();
    let bytes = read_whole(path)?;
    let broken = |error: safetensors::SafeTensorError| {
        let message = format!("this is no safetensors file: {error}");
        Error::new(ErrorKind::FileFormat, message)
            .because(error)
            .at_path(path)
    };
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    let named = metadata.get("family").map(String::as_str);
    let read = |prefix| side(&file, prefix, named).map_err(|error| error.at_path(path));
    let positive = read("")?.ok_or_else(|| missing("prompt_embeds", path))?;
    let negative = read("negative_")?;
    Ok(Saved {
        positive,
        negative,
        metadata,
    })
}

/// One prompt's tensors, or `None` where the file has no hidden states of it.
fn side(
    file: &SafeTensors<'_>,
    prefix: &str,
    family: Option<&str>,
) -> Result<Option<Conditioning>> {
    let name = format!("{prefix}prompt_embeds");
    let Some(context) = tensor_of(file, &name, 3)? else {
        return Ok(None);
    };
    let family = family_of(family, context.dim(2)?).map_err(|error| match error.kind() {
        ErrorKind::TensorShape => error.at_tensor(name),
        _ => error,
    })?;
    let pooled = tensor_of(file, &format!("{prefix}pooled_prompt_embeds"), 2)?;
    let time_ids = tensor_of(file, &format!("{prefix}time_ids"), 2)?;
    let time_ids = time_ids.map(|ids| ids.to_dtype(DType::F32)).transpose()?;
    Conditioning::new(family, context, pooled, time_ids).map(Some)
}
