//! Files for other programs: which kind `--out` or `--format` names, and what is in them.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::bail;
use sd_conditioner::candle_core::DType;
use sd_conditioner::conditioning::Sizes;
use sd_conditioner::storage::{self, comfyui, kohya};
use sd_conditioner::tokens::Split;
use sd_conditioner::{Conditioning, ConditioningList, Family, Result};

use crate::job::{Job, Only, Side};
use crate::output::{self, Named};
use crate::scribe::Metadata;
use crate::values::Precision;

/// What a file's extension asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Under diffusers' names, with all metadata
    #[value(name = "safetensors")]
    Pair,
    /// What kohya's sd-scripts cache of one SDXL prompt
    #[value(name = "te-outputs")]
    Kohya,
    /// What `ComfyUI`'s custom nodes keep of one prompt
    #[value(name = "conditioning")]
    ComfyUi,
}

/// Words that may be longer than an archive's comment. The hash of the request has them all.
const LONG: [&str; 6] = [
    "positive",
    "positive_2",
    "negative",
    "negative_2",
    "embeddings",
    "loras",
];

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

    /// What the file of a request is called.
    pub(crate) fn file_of(self, id: &str) -> String {
        match self {
            Kind::Pair => format!("{id}.safetensors"),
            Kind::Kohya => format!("{id}_te_outputs.npz"),
            Kind::ComfyUi => format!("{id}.conditioning"),
        }
    }

    /// The side that it has a place for, unless for both.
    pub(crate) const fn only(self) -> Option<Only> {
        match self {
            Kind::Pair => None,
            Kind::Kohya | Kind::ComfyUi => Some(Only::Positive),
        }
    }

    /// The metadata keys of the layout itself.
    pub(crate) fn keys(self) -> impl Iterator<Item = &'static str> {
        let keys: &[_] = match self {
            Kind::Pair | Kind::Kohya => &[],
            Kind::ComfyUi => &[comfyui::VERSION_KEY, comfyui::SCHEMA_KEY],
        };
        keys.iter().copied()
    }

    /// Refuses a family that it has no place for.
    pub(crate) fn expect_family(self, family: Family) -> anyhow::Result<()> {
        if self == Kind::Kohya && family != Family::Sdxl {
            bail!(
                "sd-scripts cache text-encoder outputs of SDXL only, and these encoders are {family}'s; write \
                 safetensors files"
            );
        }
        Ok(())
    }

    /// Refuses a type that it has no place for.
    pub(crate) fn expect_type(self, out: Precision) -> anyhow::Result<()> {
        if self == Kind::Kohya && out == Precision::Bf16 {
            bail!("numpy has no bf16, and sd-scripts' arrays are numpy's: --out-dtype f32 or f16");
        }
        Ok(())
    }

    /// Refuses a job that it has no place for.
    pub(crate) fn expect_job(self, job: &Job) -> anyhow::Result<()> {
        if self != Kind::Pair && job.steps().is_some() {
            bail!("only a .safetensors file has a place for step ranges");
        }
        if self == Kind::Kohya && job.choices().split == Split::LpwSdxl {
            bail!("sd-scripts cache whole windows, and the split `lpw-sdxl` leaves their ends out");
        }
        Ok(())
    }
}

/// The tensors of a file by name, and what its layout wants to be said.
pub(crate) fn tensors(
    kind: Kind,
    sides: &[(Side, Conditioning)],
    dtype: DType,
) -> Result<(Named, Metadata)> {
    let positive = sides.first().map(|(_, positive)| positive);
    match (kind, positive) {
        (Kind::Kohya, Some(positive)) => Ok((kohya::tensors(positive, dtype)?, Metadata::new())),
        (Kind::ComfyUi, Some(positive)) => {
            let list = ConditioningList::from(positive.clone());
            comfyui::tensors(&list.with_sizes(sizes(positive)?), dtype)
        }
        (Kind::Pair, _) | (_, None) => Ok((output::of_sides(sides, dtype)?, Metadata::new())),
    }
}

/// The bytes of a file.
pub(crate) fn to_bytes(kind: Kind, tensors: &Named, metadata: &Metadata) -> Result<Vec<u8>> {
    match kind {
        Kind::Pair | Kind::ComfyUi => storage::tensors_to_bytes(tensors, metadata),
        Kind::Kohya => kohya::to_bytes(tensors, &few_words(metadata)),
    }
}

/// What of a file's metadata an archive's comment has room for.
pub(crate) fn few_words(metadata: &Metadata) -> Metadata {
    let words = metadata.iter();
    let few = words.filter(|(key, _)| !LONG.contains(&key.as_str()));
    few.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
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
