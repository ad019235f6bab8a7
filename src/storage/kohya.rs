//! kohya's sd-scripts: text-encoder outputs of one SDXL caption, cached beside its picture as
//! `NAME_te_outputs.npz` (`library/strategy_sdxl.py`).
//!
//! | array | shape |
//! |---|---|
//! | `hidden_state1` | `[75·n + 2, 768]`, ViT-L |
//! | `hidden_state2` | `[75·n + 2, 1280]`, ViT-bigG |
//! | `pool2` | `[1280]` |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::{expect_finite, missing, npz, one_prompt, write_file};
use crate::conditioning::{Conditioning, cast};
use crate::error::{Error, ErrorKind, Result, expect_type};
use crate::weights::Family;

const FIRST: &str = "hidden_state1";
const SECOND: &str = "hidden_state2";
const POOLED: &str = "pool2";

/// Of the comment of an archive.
const COMMENT_AT_MOST: usize = u16::MAX as usize;

/// Rows of a window, with its start and its end.
const WINDOW: usize = 77;

/// Where sd-scripts look for the outputs of a picture's caption: `dog.png` → `dog_te_outputs.npz`.
pub fn file_for(picture: impl AsRef<Path>) -> PathBuf {
    let picture = picture.as_ref();
    let mut name = picture.file_stem().unwrap_or_default().to_owned();
    name.push("_te_outputs.npz");
    picture.with_file_name(name)
}

/// Writes a conditioning of SDXL in f32 or f16: its [`tensors`], and nothing else.
///
/// # Errors
///
/// Another family than SDXL, no pooled vector, rows that are no windows, another type
/// (numpy has no bf16), values that are not finite in it, or the file system.
pub fn save(path: impl AsRef<Path>, conditioning: &Conditioning, dtype: DType) -> Result<()> {
    let path = path.as_ref();
    let bytes = tensors(conditioning, dtype).and_then(|tensors| {
        expect_finite(&tensors)?;
        npz::to_bytes(&tensors, "")
    });
    write_file(path, &bytes.map_err(|error| error.at_path(path))?)
}

/// The arrays of a file by name. Of several windows the starts and ends between them are left out, as
/// sd-scripts do: 77·n rows become 75·n + 2. Size numbers are not among them: sd-scripts take them from
/// the picture.
pub fn tensors(conditioning: &Conditioning, dtype: DType) -> Result<BTreeMap<String, Tensor>> {
    expect_type("sd-scripts' arrays", dtype, &[DType::F32, DType::F16])?;
    let refused = |message: &str| Err(Error::new(ErrorKind::Mismatch, message));
    if conditioning.family() != Family::Sdxl {
        return refused("sd-scripts cache text-encoder outputs of SDXL only");
    }
    one_prompt(conditioning)?;
    let Some(pooled) = conditioning.pooled() else {
        return refused("a conditioning of SDXL without its pooled vector");
    };
    let hidden = conditioning.context().squeeze(0)?.to_device(&Device::Cpu)?;
    let context = cast("hidden states", &hidden, dtype)?;
    let pooled = cast(POOLED, &pooled.squeeze(0)?.to_device(&Device::Cpu)?, dtype)?;
    // bigG's pooled vector is as wide as its hidden states.
    let (channels, second) = (context.dim(1)?, pooled.dim(0)?);
    if channels <= second || context.dim(0)? % WINDOW != 0 {
        return refused("hidden states that are not windows of ViT-L and ViT-bigG");
    }
    let rows = inner_rows(&context)?;
    let first = rows.narrow(1, 0, channels - second)?;
    let second = rows.narrow(1, channels - second, second)?;
    let named = [(FIRST, first), (SECOND, second), (POOLED, pooled)];
    Ok(named.map(|(name, tensor)| (name.to_owned(), tensor)).into())
}

/// The bytes of a file of these [`tensors`]. What it says of itself stands as a JSON object in the comment
/// of the archive, which numpy passes over; it may have 65,535 bytes.
pub fn to_bytes(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let said = serde_json::to_string(metadata)
        .map_err(|error| Error::new(ErrorKind::Mismatch, error.to_string()).because(error))?;
    if said.len() > COMMENT_AT_MOST {
        let length = said.len();
        let message = format!("metadata of {length} bytes; the most is {COMMENT_AT_MOST}");
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    npz::to_bytes(tensors, &said)
}

/// What a file says of itself, and what its arrays are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// What [`to_bytes`] was given; nothing in other programs' files.
    pub metadata: BTreeMap<String, String>,
    /// Of all three arrays.
    pub dtype: DType,
    /// Of the hidden states.
    pub rows: usize,
}

/// Looks at the headers of a file, and at none of its numbers. A file that is cut or lengthened, that lacks
/// an array or has others, is refused.
pub fn summary(path: impl AsRef<Path>) -> Result<Summary> {
    let path = path.as_ref();
    let held = npz::contents(path)?;
    let shapes = held.arrays.iter().map(|(name, array)| {
        let shape = array.shape.as_slice();
        (name.as_str(), array.dtype, shape)
    });
    let (rows, dtype) = match *shapes.collect::<Vec<_>>() {
        [
            (FIRST, one, &[rows, _]),
            (SECOND, two, &[same, second]),
            (POOLED, three, &[pooled]),
        ] if [two, three] == [one; 2] && rows == same && second == pooled => (rows, one),
        _ => {
            let message = "arrays that are not those of a caption of SDXL";
            return Err(Error::new(ErrorKind::FileFormat, message).at_path(path));
        }
    };
    // Other programs write no comment, or one of their own.
    let metadata = serde_json::from_slice(&held.comment).unwrap_or_default();
    Ok(Summary {
        metadata,
        dtype,
        rows,
    })
}

/// The first row, the 75 inner rows of each window, the last row.
fn inner_rows(context: &Tensor) -> Result<Tensor> {
    let rows = context.dim(0)?;
    if rows == WINDOW {
        return Ok(context.clone());
    }
    let mut kept = vec![context.narrow(0, 0, 1)?];
    for window in 0..rows / WINDOW {
        kept.push(context.narrow(0, window * WINDOW + 1, WINDOW - 2)?);
    }
    kept.push(context.narrow(0, rows - 1, 1)?);
    Ok(Tensor::cat(&kept, 0)?)
}

/// Reads what [`save`] or sd-scripts wrote, without size numbers: `[1, rows, 768 + 1280]` and
/// `[1, 1280]`, in the stored type.
pub fn load(path: impl AsRef<Path>) -> Result<Conditioning> {
    let path = path.as_ref();
    let mut arrays = npz::read(path, &[FIRST, SECOND, POOLED])?;
    let mut take = |name: &str| arrays.remove(name).ok_or_else(|| missing(name, path));
    let (first, second, pooled) = (take(FIRST)?, take(SECOND)?, take(POOLED)?);
    let rows = |tensor: &Tensor| tensor.dims().first().copied();
    let shapes = [first.dims().len(), second.dims().len(), pooled.dims().len()];
    if shapes != [2, 2, 1] || rows(&first) != rows(&second) {
        let message = format!(
            "shapes {:?}, {:?} and {:?}; expected [rows, 768], [rows, 1280] and [1280]",
            first.dims(),
            second.dims(),
            pooled.dims()
        );
        return Err(Error::new(ErrorKind::TensorShape, message).at_path(path));
    }
    let context = Tensor::cat(&[&first, &second.to_dtype(first.dtype())?], 1)?.unsqueeze(0)?;
    Conditioning::new(Family::Sdxl, context, Some(pooled.unsqueeze(0)?), None)
}
