//! What each of `ComfyUI`'s conditioning nodes does (`nodes.py`, `comfy_extras/nodes_clip_sdxl.py`).

use super::{
    Area, ConditioningList, Entry, Mask, MaskArea, PercentRange, Side, Sizes, Unclip, finite,
};
use crate::conditioning::Conditioning;
use crate::error::{Error, ErrorKind, Result};

impl ConditioningList {
    /// The entries of both, these first (`ConditioningCombine`).
    #[must_use]
    pub fn combine(&self, other: &ConditioningList) -> ConditioningList {
        let both = self.entries.iter().chain(&other.entries);
        both.cloned().collect()
    }

    /// Rows of the first entry of `from` behind the rows of each entry; everything else stays
    /// (`ConditioningConcat`). An empty `from` is an error.
    pub fn concat(&self, from: &ConditioningList) -> Result<ConditioningList> {
        let from = from.first()?;
        self.each(|entry| entry.holding(entry.conditioning.concat(&from.conditioning)))
    }

    /// Each entry times `share` plus the first entry of `from` times `1 - share`, pooled vectors
    /// likewise; `from` is cut to the length of the entry or filled with zeros
    /// (`ConditioningAverage`). An empty `from` is an error.
    pub fn average(&self, from: &ConditioningList, share: f64) -> Result<ConditioningList> {
        let share = finite("a share", share)?;
        let from = from.first()?;
        self.each(|entry| entry.holding(entry.conditioning.average(&from.conditioning, share)))
    }

    /// Hidden states and pooled vectors replaced by zeros (`ConditioningZeroOut`).
    pub fn zeroed(&self) -> Result<ConditioningList> {
        self.each(|entry| entry.holding(entry.conditioning.zeroed()))
    }

    /// Meant in one part of the picture, and how much it counts there (`ConditioningSetArea`,
    /// `ConditioningSetAreaPercentage`). Masks that were set stay, their bounding box does not.
    pub fn with_area(&self, area: Area, strength: f64) -> Result<ConditioningList> {
        let (area, strength) = (area.checked()?, finite("a strength", strength)?);
        self.each(|entry| {
            Ok(Entry {
                area: Some(area),
                strength: Some(strength),
                mask_area: Some(MaskArea::Whole),
                ..entry.clone()
            })
        })
    }

    /// How much it counts beside others (`ConditioningSetAreaStrength`).
    pub fn with_strength(&self, strength: f64) -> Result<ConditioningList> {
        let strength = Some(finite("a strength", strength)?);
        self.each(|entry| {
            Ok(Entry {
                strength,
                ..entry.clone()
            })
        })
    }

    /// Meant as much as a mask says (`ConditioningSetMask`).
    pub fn with_mask(&self, mask: &Mask, strength: f64, area: MaskArea) -> Result<Self> {
        let mask_strength = Some(finite("a strength", strength)?);
        self.each(|entry| {
            Ok(Entry {
                mask: Some(mask.clone()),
                mask_strength,
                mask_area: Some(area),
                ..entry.clone()
            })
        })
    }

    /// Meant between two shares of the sampling (`ConditioningSetTimestepRange`).
    pub fn with_range(&self, start: f64, end: f64) -> Result<ConditioningList> {
        let (start, end) = (finite("a start", start)?, finite("an end", end)?);
        let range = Some(PercentRange { start, end });
        self.each(|entry| {
            Ok(Entry {
                range,
                ..entry.clone()
            })
        })
    }

    /// Size numbers; those that are `None` stay as they are (`CLIPTextEncodeSDXL`,
    /// `CLIPTextEncodeSDXLRefiner`).
    #[must_use]
    pub fn with_sizes(&self, sizes: Sizes) -> ConditioningList {
        let entries = self.entries.iter();
        entries
            .map(|entry| entry.clone().with_sizes(sizes))
            .collect()
    }

    /// A picture's embedding more; a strength of 0 changes nothing (`unCLIPConditioning`).
    pub fn with_unclip(&self, unclip: &Unclip) -> Result<ConditioningList> {
        finite("a strength", unclip.strength)?;
        finite("a noise augmentation", unclip.noise_augmentation)?;
        if unclip.strength == 0.0 {
            return Ok(self.clone());
        }
        self.each(|entry| {
            let mut entry = entry.clone();
            entry.unclip.push(unclip.clone());
            Ok(entry)
        })
    }

    fn each(&self, change: impl FnMut(&Entry) -> Result<Entry>) -> Result<ConditioningList> {
        self.entries.iter().map(change).collect()
    }

    fn first(&self) -> Result<&Entry> {
        self.entries.first().ok_or_else(|| {
            let message = "the conditioning to take from has no entry";
            Error::new(ErrorKind::Mismatch, message)
        })
    }
}

impl Entry {
    /// Size numbers; those that are `None` stay as they are.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Entry {
        self.sizes = self.sizes.overlaid(sizes);
        self
    }

    /// What the U-Net takes for this entry while a picture of this size is sampled, in latent
    /// pixels: with the entry's own size numbers, else the picture's (`encode_adm`,
    /// `comfy/model_base.py`).
    pub fn for_latent(&self, latent: super::LatentSize, side: Side) -> Result<Conditioning> {
        let hints = self.sizes.hints(latent);
        self.conditioning.clone().sized(&hints, side.is_negative())
    }

    fn holding(&self, conditioning: Result<Conditioning>) -> Result<Entry> {
        Ok(Entry {
            conditioning: conditioning?,
            ..self.clone()
        })
    }
}
