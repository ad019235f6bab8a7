//! Files for other programs: which kind `--out` names, and writing it.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::bail;
use sd_conditioner::candle_core::DType;
use sd_conditioner::conditioning::Sizes;
use sd_conditioner::storage::{comfyui, kohya};
use sd_conditioner::{Conditioning, ConditioningList, Guidance, Result};

/// What a file's extension asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Both prompts under diffusers' names: `.safetensors`, and no extension at all.
    Pair,
    /// What kohya's sd-scripts cache of one SDXL prompt: `.npz`.
    Kohya,
    /// What `ComfyUI`'s custom nodes keep of one prompt: `.conditioning`.
    ComfyUi,
}

impl Kind {
    /// By extension; one that stands for something else is refused.
    pub(crate) fn of(path: &Path) -> anyhow::Result<Kind> {
        let extension = path.extension().map(OsStr::to_ascii_lowercase);
        Ok(match extension.as_deref().map(|one| one.to_str()) {
            None | Some(Some("safetensors")) => Kind::Pair,
            Some(Some("npz")) => Kind::Kohya,
            Some(Some("conditioning")) => Kind::ComfyUi,
            Some(_) => bail!(
                "{}: no such file is written; name it .safetensors, _te_outputs.npz or .conditioning",
                path.display()
            ),
        })
    }
}

/// Writes the positive prompt's as another program has it.
pub(crate) fn write(kind: Kind, path: &Path, guidance: &Guidance, dtype: DType) -> Result<()> {
    let positive = guidance.positive();
    match kind {
        Kind::Pair => Ok(()),
        Kind::Kohya => kohya::save(path, positive, dtype),
        Kind::ComfyUi => {
            let list = ConditioningList::from(positive.clone());
            comfyui::save(path, &list.with_sizes(sizes(positive)?), dtype)
        }
    }
}

/// Size numbers as `CLIPTextEncodeSDXL` and `CLIPTextEncodeSDXLRefiner` set them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole numbers of pixels, made from u32"
)]
fn sizes(conditioning: &Conditioning) -> Result<Sizes> {
    let Some(ids) = conditioning.time_ids() else {
        return Ok(Sizes::default());
    };
    let ids = ids.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let pixels = |place: usize| ids.get(place).map(|pixels| *pixels as u32);
    let sizes = Sizes {
        height: pixels(0),
        width: pixels(1),
        ..Sizes::default()
    };
    Ok(match ids[..] {
        [_, _, _, _, score] => Sizes {
            aesthetic_score: Some(f64::from(score)),
            ..sizes
        },
        _ => Sizes {
            crop_h: pixels(2),
            crop_w: pixels(3),
            target_height: pixels(4),
            target_width: pixels(5),
            ..sizes
        },
    })
}
