//! CONDITIONING AS A LIST: what `ComfyUI` hands from node to node and on to its samplers, with the
//! meaning that its samplers give to each entry.
//!
//! # How a sampler follows a list
//!
//! Sources: `nodes.py`, `comfy/samplers.py`, `comfy/model_base.py` and `comfy/conds.py` of `ComfyUI`
//! 0.3.64. One model call at noise level sigma, for latents `x` of `[batch, 4, height, width]`:
//!
//! 1. [`pair_areas`] gives each area of one side a counterpart on the other.
//! 2. [`ConditioningList::active_at`] picks the entries that are meant now. If there is none, the
//!    prediction of that side is zero.
//! 3. [`Entry::region`] says which part of the latents an entry predicts, and with which multiplier
//!    its prediction counts at each place: `strength`, times the mask or, for an area without mask, a
//!    ramp over up to 8 latent pixels at edges that do not touch the border.
//! 4. [`Entry::for_latent`] is what the U-Net takes: hidden states, pooled vector, sizes.
//! 5. The side's prediction is `Σ predictionᵢ · multiplierᵢ / Σ multiplierᵢ`.
//! 6. [`guided`] joins both sides: `negative + (positive - negative) · scale`.
//!
//! [`ConditioningList::predict`] is 2 to 5 in code. Predictions of entries whose parts have one size
//! may share a forward; [`common_length`](super::common_length) then tells how many rows their hidden
//! states are repeated to. That changes nothing but rounding.

mod area;
mod blend;
mod mask;
mod ops;
mod pairs;
mod region;
mod schedule;
mod sigma;
mod sizes;

pub use area::{Area, LatentArea, LatentSize};
pub use blend::guided;
pub use mask::{Mask, MaskArea};
pub use pairs::pair_areas;
pub use region::Region;
pub use sigma::{Moment, SigmaTable};
pub use sizes::{Side, Sizes};

use candle_core::Tensor;

use super::Conditioning;
use crate::error::{Error, ErrorKind, Result};

/// Some conditionings with where, when and how much each is meant (`ComfyUI`'s `CONDITIONING`).
///
/// Operations leave the original as it is; tensors are shared where nothing changes.
///
/// ```
/// use sd_conditioner::conditioning::{Area, ConditioningList};
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
/// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
/// let forest = ConditioningList::from(text.encode("a forest")?);
/// let lake = ConditioningList::from(text.encode("a lake")?);
/// let left = forest.with_area(Area::of_pixels(256, 512, 0, 0), 1.0)?;
/// let right = lake.with_area(Area::of_pixels(256, 512, 256, 0), 0.8)?;
/// let both = left.combine(&right);
/// assert_eq!(both.entries()[1].strength(), Some(0.8));
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConditioningList {
    entries: Vec<Entry>,
}

impl From<Conditioning> for ConditioningList {
    fn from(conditioning: Conditioning) -> ConditioningList {
        ConditioningList::new(vec![Entry::new(conditioning)])
    }
}

impl FromIterator<Entry> for ConditioningList {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> ConditioningList {
        ConditioningList::new(entries.into_iter().collect())
    }
}

impl ConditioningList {
    /// These entries, in this order.
    pub fn new(entries: Vec<Entry>) -> ConditioningList {
        ConditioningList { entries }
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries that are meant at a moment.
    pub fn active_at<'a>(&'a self, moment: Moment<'a>) -> impl Iterator<Item = &'a Entry> {
        let entries = self.entries.iter();
        entries.filter(move |entry| entry.is_active_at(moment))
    }
}

/// One conditioning, and where, when and how much it is meant. What was never set is `None`, which a
/// sampler takes for everywhere, always and 1.
#[derive(Clone, Debug)]
pub struct Entry {
    conditioning: Conditioning,
    sizes: Sizes,
    area: Option<Area>,
    strength: Option<f64>,
    mask: Option<Mask>,
    mask_strength: Option<f64>,
    mask_area: Option<MaskArea>,
    range: Option<PercentRange>,
    unclip: Vec<Unclip>,
}

/// Everything that an entry may have set beside its tensors, as files hold it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) sizes: Sizes,
    pub(crate) area: Option<Area>,
    pub(crate) strength: Option<f64>,
    pub(crate) mask: Option<Mask>,
    pub(crate) mask_strength: Option<f64>,
    pub(crate) mask_area: Option<MaskArea>,
    pub(crate) range: Option<PercentRange>,
}

/// From where to where in the sampling an entry is meant, in shares: 0 is pure noise, 1 the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PercentRange {
    /// From here, inclusive.
    pub start: f64,
    /// To here, inclusive.
    pub end: f64,
}

/// A picture's embedding for unCLIP models (`unCLIPConditioning`). This crate makes none; it keeps
/// what it is given beside the text.
#[derive(Clone, Debug)]
pub struct Unclip {
    /// `[1, width]`, of an image encoder.
    pub embedding: Tensor,
    /// What the noised embedding is multiplied with.
    pub strength: f64,
    /// How much noise it is given, 0 to 1.
    pub noise_augmentation: f64,
}

impl Entry {
    /// A conditioning that is meant everywhere and always.
    ///
    /// Its size numbers ([`Conditioning::time_ids`]) do not come along: an entry has those that
    /// [`with_sizes`](Self::with_sizes) gives it, and for the others those of the picture that is
    /// sampled (see [`for_latent`](Self::for_latent)).
    pub fn new(conditioning: Conditioning) -> Entry {
        Entry {
            conditioning: conditioning.without_size(),
            sizes: Sizes::default(),
            area: None,
            strength: None,
            mask: None,
            mask_strength: None,
            mask_area: None,
            range: None,
            unclip: Vec::new(),
        }
    }

    /// The same conditioning with these attributes and no others.
    pub(crate) fn with_attributes(self, attributes: Attributes) -> Result<Entry> {
        let numbers = [attributes.strength, attributes.mask_strength];
        let ends = attributes.range.map(|range| [range.start, range.end]);
        for number in numbers
            .into_iter()
            .flatten()
            .chain(ends.into_iter().flatten())
        {
            finite("an attribute", number)?;
        }
        let area = attributes.area.map(Area::checked).transpose()?;
        Ok(Entry {
            sizes: attributes.sizes,
            area,
            strength: attributes.strength,
            mask: attributes.mask,
            mask_strength: attributes.mask_strength,
            mask_area: attributes.mask_area,
            range: attributes.range,
            ..self
        })
    }

    /// Hidden states and pooled vector.
    pub fn conditioning(&self) -> &Conditioning {
        &self.conditioning
    }

    /// Size numbers that were set.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Which part of the picture.
    pub fn area(&self) -> Option<Area> {
        self.area
    }

    /// How much it counts beside others; 1 where it was never set.
    pub fn strength(&self) -> Option<f64> {
        self.strength
    }

    /// How much it counts at each place.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// What the mask is multiplied with.
    pub fn mask_strength(&self) -> Option<f64> {
        self.mask_strength
    }

    /// Whether the area is the mask's bounding box. Set by areas and by masks.
    pub fn mask_area(&self) -> Option<MaskArea> {
        self.mask_area
    }

    /// From where to where in the sampling.
    pub fn range(&self) -> Option<PercentRange> {
        self.range
    }

    /// Pictures' embeddings.
    pub fn unclip(&self) -> &[Unclip] {
        &self.unclip
    }

    /// Whether it is meant at a moment; both ends of its range belong to it.
    pub fn is_active_at(&self, moment: Moment<'_>) -> bool {
        self.range.is_none_or(|range| moment.is_within(range))
    }
}

/// Refuses what is no number.
fn finite(what: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::new(
        ErrorKind::Request,
        format!("{what} of {value}: a finite number is needed"),
    ))
}
