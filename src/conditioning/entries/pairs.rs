//! Areas of one side get a counterpart on the other.

use super::{ConditioningList, Entry, LatentArea, LatentSize};
use crate::error::Result;

/// Both sides with what `ComfyUI` adds before it samples: for each entry with an area, the other side
/// gets a copy of it (area, mask, strength, range) with the text of its own smallest entry around that
/// area, or of its first without an area; unless the smallest has just this area, or there is none.
/// Thus a text that is meant in a corner is compared with the negative prompt there
/// (`create_cond_with_same_area_if_none`, `comfy/samplers.py`).
///
/// ```
/// use sd_conditioner::conditioning::{Area, ConditioningList, LatentSize, pair_areas};
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
/// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
/// let positive = ConditioningList::from(text.encode("a cat")?);
/// let positive = positive.with_area(Area::of_pixels(256, 256, 0, 0), 1.0)?;
/// let negative = ConditioningList::from(text.encode("blurry")?);
/// let (_, negative) = pair_areas(&positive, &negative, LatentSize::of_pixels(512, 512))?;
/// assert_eq!(negative.entries()[1].area(), positive.entries()[0].area());
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
pub fn pair_areas(
    positive: &ConditioningList,
    negative: &ConditioningList,
    latent: LatentSize,
) -> Result<(ConditioningList, ConditioningList)> {
    let located = |list: &ConditioningList| -> Result<Vec<Located>> {
        let entries = list.entries.iter();
        let locate = |entry: &Entry| Ok((entry.latent_area(latent)?, entry.clone()));
        entries.map(locate).collect()
    };
    let (mut positive, mut negative) = (located(positive)?, located(negative)?);
    add_counterparts(&positive, &mut negative);
    add_counterparts(&negative, &mut positive);
    let list = |side: Vec<Located>| side.into_iter().map(|(_, entry)| entry).collect();
    Ok((list(positive), list(negative)))
}

/// An entry with its rectangle.
type Located = (Option<LatentArea>, Entry);

fn add_counterparts(side: &[Located], other: &mut Vec<Located>) {
    for (area, entry) in side {
        if let Some(area) = area
            && let Some((around, text)) = smallest_around(other, *area)
            && *around != Some(*area)
        {
            let copy = Entry {
                conditioning: text.conditioning.clone(),
                sizes: text.sizes,
                unclip: text.unclip.clone(),
                ..entry.clone()
            };
            other.push((Some(*area), copy));
        }
    }
}

/// The first entry with the smallest rectangle around `area`, else the first that has none.
fn smallest_around(side: &[Located], area: LatentArea) -> Option<&Located> {
    let around = |located: &&Located| located.0.is_none_or(|other| area.is_inside(other));
    let size = |located: &&Located| located.0.map_or(usize::MAX, LatentArea::places);
    side.iter().filter(around).min_by_key(size)
}
