//! How an arrangement spells an encoder's tensors: root, style, and the projection's place.

use super::Arrangement;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::layout::{Style, huggingface};
use crate::weights::{EncoderId, Family};

/// Where an encoder goes and how it is spelt there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    pub(super) style: Style,
    /// What stands before every tensor of the tower.
    pub(super) root: String,
    /// The projection's name in full.
    pub(super) projection: String,
    /// True where the projection is written as `[width, projected]`.
    pub(super) transposed: bool,
}

/// The spelling of each of `encoders`, which are written together.
pub(super) fn spell(arrangement: Arrangement, encoders: &[EncoderId]) -> Result<Vec<Spelling>> {
    match arrangement {
        Arrangement::Diffusers | Arrangement::Standalone => {
            Ok(encoders.iter().map(|_| transformers("")).collect())
        }
        Arrangement::SingleFile => {
            let family = family(encoders)?;
            Ok(encoders.iter().map(|one| single(family, *one)).collect())
        }
    }
}

/// The family that has exactly these encoders.
pub(super) fn family(encoders: &[EncoderId]) -> Result<Family> {
    let found = Family::ALL
        .into_iter()
        .find(|family| family.encoders() == encoders);
    found.ok_or_else(|| {
        let tags: Vec<_> = encoders.iter().map(|encoder| encoder.tag()).collect();
        let message = format!("no family has the text encoders {}", tags.join(" and "));
        Error::new(ErrorKind::Mismatch, message).hint("write one encoder alone")
    })
}

fn single(family: Family, encoder: EncoderId) -> Spelling {
    match (family, encoder) {
        (Family::Sd1, _) => transformers("cond_stage_model.transformer."),
        (Family::Sd2, _) => open_clip("cond_stage_model.model."),
        (Family::Sdxl, EncoderId::ClipL) => transformers("conditioner.embedders.0.transformer."),
        (Family::Sdxl, EncoderId::OpenClipH | EncoderId::OpenClipG) => {
            open_clip("conditioner.embedders.1.model.")
        }
        (Family::Refiner, _) => open_clip("conditioner.embedders.0.model."),
    }
}

fn transformers(place: &str) -> Spelling {
    Spelling {
        style: Style::HuggingFace,
        root: format!("{place}{}", huggingface::ROOT),
        projection: format!("{place}text_projection.weight"),
        transposed: false,
    }
}

fn open_clip(root: &str) -> Spelling {
    Spelling {
        style: Style::OpenClip,
        root: root.to_owned(),
        projection: format!("{root}text_projection"),
        transposed: true,
    }
}
