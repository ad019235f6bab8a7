//! Which family a set of encoders makes, and what contradicts it.

use super::single_file::Slot;
use super::{Style, Tower};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::Archive;
use crate::weights::{EncoderId, Family};

use EncoderId::{ClipL, OpenClipG, OpenClipH};

/// What a checkpoint is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The family, if the file decides it.
    pub(crate) family: Option<Family>,
    /// What it may serve as, the default first.
    pub(crate) candidates: Vec<Family>,
}

impl Decision {
    pub(crate) fn sure(family: Family) -> Decision {
        Decision {
            family: Some(family),
            candidates: vec![family],
        }
    }
}

/// The family of a single file's towers; at most one tower for each encoder.
pub(crate) fn decide(archive: &Archive, towers: &[Tower]) -> Result<Decision> {
    let unet = unet_width(archive);
    let decision = by_slots(archive, towers, unet)?;
    if let (Some(family), Some(width)) = (decision.family, unet) {
        agree(family, width)?;
    }
    Ok(decision)
}

/// The family by the slots that the towers are in.
fn by_slots(archive: &Archive, towers: &[Tower], unet: Option<usize>) -> Result<Decision> {
    let slots: Vec<_> = towers
        .iter()
        .map(|tower| (Slot::of(&tower.found.root), tower))
        .collect();
    let at = |wanted: Slot| {
        slots
            .iter()
            .find(|(slot, _)| *slot == wanted)
            .map(|(_, tower)| *tower)
    };
    let sgm = [at(Slot::Sgm(0)), at(Slot::Sgm(1))];
    let (ldm_tower, sgm) = match (at(Slot::SecondLdm), sgm) {
        (Some(second), [None, None]) => (None, [at(Slot::Ldm), Some(second)]),
        (_, sgm) => (at(Slot::Ldm), sgm),
    };
    match (ldm_tower, sgm) {
        (Some(_), [Some(_), _] | [_, Some(_)]) => Err(mismatch(
            "the file holds both `cond_stage_model.` and `conditioner.embedders.` encoders",
        )),
        (Some(tower), [None, None]) => ldm(tower.found.encoder).map(Decision::sure),
        (None, [None, None]) => free(archive, towers, unet),
        (None, [first, second]) => sgm_family(first, second, unet).map(Decision::sure),
    }
}

fn ldm(encoder: EncoderId) -> Result<Family> {
    match encoder {
        ClipL => Ok(Family::Sd1),
        OpenClipH => Ok(Family::Sd2),
        OpenClipG => Err(mismatch(
            "`cond_stage_model.` holds ViT-bigG, which no SD 1.x or 2.x has",
        )),
    }
}

fn sgm_family(
    first: Option<&Tower>,
    second: Option<&Tower>,
    unet: Option<usize>,
) -> Result<Family> {
    let encoder = |tower: Option<&Tower>| tower.map(|tower| tower.found.encoder);
    let transformers = first.is_some_and(|tower| tower.found.style == Style::HuggingFace);
    match (encoder(first), encoder(second)) {
        (Some(ClipL), Some(OpenClipG)) => Ok(Family::Sdxl),
        (Some(ClipL), None) if unet == Some(2048) => Err(missing(OpenClipG, "embedders.1.model.")),
        (Some(ClipL), None) => Ok(Family::Sd1),
        (Some(OpenClipH), None) => Ok(Family::Sd2),
        (Some(OpenClipG), None) if transformers && unet != Some(1280) => Err(swapped()),
        (Some(OpenClipG), None) => Ok(Family::Refiner),
        (None, Some(OpenClipG)) => Err(missing(ClipL, "embedders.0.transformer.text_model.")),
        (Some(OpenClipG), Some(ClipL)) | (None, Some(ClipL | OpenClipH)) => Err(swapped()),
        (Some(first), Some(second)) => Err(mismatch(&format!(
            "the encoders {first} and {second} belong to no family together"
        ))),
        (None, None) => Err(mismatch("encoders only in slots that no family has")),
    }
}

/// Standalone encoders, and files of other programs.
fn free(archive: &Archive, towers: &[Tower], unet: Option<usize>) -> Result<Decision> {
    if is_sd3(archive) {
        return Ok(Decision {
            family: None,
            candidates: Vec::new(),
        });
    }
    let encoders: Vec<_> = towers.iter().map(|tower| tower.found.encoder).collect();
    let decision = match (encoders.as_slice(), unet) {
        ([ClipL], Some(2048)) => return Err(missing(OpenClipG, "te2. or clip_g.")),
        ([OpenClipG], Some(2048)) => return Err(missing(ClipL, "te1. or clip_l.")),
        ([ClipL], Some(_)) => Decision::sure(Family::Sd1),
        ([OpenClipG], Some(_)) => Decision::sure(Family::Refiner),
        ([ClipL, OpenClipG], _) => Decision::sure(Family::Sdxl),
        _ => of_encoders(&encoders),
    };
    Ok(decision)
}

/// What encoders alone, in their order, may serve as: one L is SD 1.x unless another file adds G;
/// one G is the refiner's unless another file adds L.
pub(crate) fn of_encoders(encoders: &[EncoderId]) -> Decision {
    match encoders {
        [ClipL] => Decision {
            family: None,
            candidates: vec![Family::Sd1, Family::Sdxl],
        },
        [OpenClipG] => Decision {
            family: None,
            candidates: vec![Family::Refiner, Family::Sdxl],
        },
        [OpenClipH] => Decision::sure(Family::Sd2),
        [ClipL, OpenClipG] => Decision::sure(Family::Sdxl),
        several => {
            let whole = |family: &Family| family.encoders().iter().all(|one| several.contains(one));
            Decision {
                family: None,
                candidates: Family::ALL.into_iter().filter(whole).collect(),
            }
        }
    }
}

/// True for checkpoints whose transformer or whose T5 is Stable Diffusion 3's or Flux's.
pub(crate) fn is_sd3(archive: &Archive) -> bool {
    [
        "text_encoders.t5xxl.",
        "joint_blocks.",
        "model.diffusion_model.joint_blocks.",
        "double_blocks.",
        "model.diffusion_model.double_blocks.",
    ]
    .iter()
    .any(|prefix| archive.has_below(prefix))
}

/// The width of the context that the file's U-Net takes: the last dimension of its cross-attention
/// keys, if it is one that a Stable Diffusion has (packed weights show other numbers).
fn unet_width(archive: &Archive) -> Option<usize> {
    let keys = archive.below("model.diffusion_model.");
    let mut widths =
        keys.filter(|(name, entry)| name.ends_with(".attn2.to_k.weight") && entry.shape.len() == 2);
    let width = widths.find_map(|(_, entry)| entry.shape.last().copied());
    width.filter(|width| {
        Family::ALL
            .iter()
            .any(|family| context_width(*family) == *width)
    })
}

/// Channels of the conditioning: SD 1.x 768, 2.x 1024, SDXL 768 + 1280, refiner 1280.
const fn context_width(family: Family) -> usize {
    match family {
        Family::Sd1 => 768,
        Family::Sd2 => 1024,
        Family::Sdxl => 2048,
        Family::Refiner => 1280,
    }
}

fn agree(family: Family, width: usize) -> Result<()> {
    let expected = context_width(family);
    if width == expected {
        return Ok(());
    }
    let other = Family::ALL
        .into_iter()
        .find(|family| context_width(*family) == width);
    let other = other.map_or("another family", Family::name);
    Err(mismatch(&format!(
        "text encoder and U-Net disagree: the encoders are {family}'s ({expected} channels), the \
         U-Net is {other}'s ({width})"
    )))
}

fn mismatch(message: &str) -> Error {
    Error::new(ErrorKind::Mismatch, message).hint("this is a damaged or mixed checkpoint")
}

fn swapped() -> Error {
    mismatch("the encoders are swapped: SDXL has ViT-L in slot 0 and ViT-bigG in slot 1")
}

fn missing(encoder: EncoderId, place: &str) -> Error {
    let which = if encoder == ClipL { "first" } else { "second" };
    let message = format!("SDXL's {which} text encoder ({encoder}, `{place}`) is missing");
    Error::new(ErrorKind::MissingTensor, message).hint("this is a damaged SDXL checkpoint")
}
