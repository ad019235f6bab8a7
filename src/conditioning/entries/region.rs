//! The part of the latents that an entry predicts, and how much its prediction counts there.

use candle_core::{Device, Tensor};

use super::{Entry, LatentArea, LatentSize, MaskArea};
use crate::error::{Error, ErrorKind, Result};

/// How many rows at an inner edge of an area are faded in (`get_area_and_mult`,
/// `comfy/samplers.py`).
const FADED: usize = 8;

/// A part of the latents with a multiplier for each place.
#[derive(Clone, Debug)]
pub struct Region {
    /// Inside the latents.
    pub area: LatentArea,
    /// `[masks, area height, area width]`, f32, on the CPU; one mask unless the entry has several.
    pub multiplier: Tensor,
}

impl Entry {
    /// The rectangle that the entry is meant in, as it is set: its mask's bounding box, its area, or
    /// `None` for everywhere.
    pub fn latent_area(&self, latent: LatentSize) -> Result<Option<LatentArea>> {
        match (&self.mask, self.mask_area) {
            (Some(mask), Some(MaskArea::Bounds)) => Ok(Some(mask.resized(latent)?.bounds()?)),
            _ => Ok(self.area.map(|area| area.in_latent(latent))),
        }
    }

    /// The part of latents of this size that the entry predicts, and with which multiplier. An
    /// area with nothing inside is an error.
    pub fn region(&self, latent: LatentSize) -> Result<Region> {
        let set = self.latent_area(latent)?;
        let area = set.unwrap_or(LatentArea::whole(latent)).clipped(latent)?;
        let strength = self.strength.unwrap_or(1.0);
        let multiplier = match &self.mask {
            Some(mask) => {
                let mask = mask.resized(latent)?.tensor().clone();
                let mask = mask.narrow(1, area.y, area.height)?;
                let mask = mask.narrow(2, area.x, area.width)?;
                ((mask * self.mask_strength.unwrap_or(1.0))? * strength)?
            }
            None => faded(area, latent, set.is_some(), strength)?,
        };
        Ok(Region { area, multiplier })
    }
}

/// `strength` everywhere, and less towards the edges of an area that are inside the picture.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference counts in f32"
)]
fn faded(area: LatentArea, latent: LatentSize, is_set: bool, strength: f64) -> Result<Tensor> {
    let flat = |length: usize| vec![1.0_f32; length];
    let (rows, columns) = if is_set {
        (
            ramp(area.y, area.height, latent.height),
            ramp(area.x, area.width, latent.width),
        )
    } else {
        (flat(area.height), flat(area.width))
    };
    let mut values = Vec::with_capacity(area.places());
    for row in rows {
        values.extend(columns.iter().map(|column| strength as f32 * row * column));
    }
    let shape = (1, area.height, area.width);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// One way: `(t + 1) / r` at the t-th place from an inner edge, for up to a quarter of the length.
fn ramp(start: usize, length: usize, side: usize) -> Vec<f32> {
    let mut ramp = vec![1.0_f32; length];
    let faded = FADED.min(length / 4);
    for step in 0..faded {
        let share = 1.0 / faded as f32 * (step + 1) as f32;
        if start > 0 {
            ramp[step] *= share;
        }
        if start + length < side {
            ramp[length - 1 - step] *= share;
        }
    }
    ramp
}

impl Region {
    /// The multipliers for a batch, `[batch, 1, height, width]`: one mask serves all, several are
    /// dealt out in order. A batch that they do not divide is an error.
    pub(super) fn for_batch(&self, batch: usize) -> Result<Tensor> {
        let masks = self.multiplier.dim(0)?.min(batch);
        if masks == 0 || !batch.is_multiple_of(masks) {
            let message = format!("{masks} masks for a batch of {batch}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        let used = self.multiplier.narrow(0, 0, masks)?;
        Ok(used.repeat((batch / masks, 1, 1))?.unsqueeze(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_edges_are_faded() {
        assert_eq!(ramp(0, 8, 8), [1.0; 8]);
        assert_eq!(ramp(0, 8, 9)[4..], [1.0, 1.0, 1.0, 0.5]);
        assert_eq!(ramp(1, 8, 9)[..3], [0.5, 1.0, 1.0]);
        assert_eq!(ramp(1, 3, 9), [1.0; 3]);
        let long = ramp(4, 64, 96);
        assert_eq!(
            long[..8],
            [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
        );
        assert_eq!(
            long[56..],
            [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
        );
    }
}
