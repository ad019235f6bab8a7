//! Predictions of all entries → the prediction of a side → the guided prediction.

use candle_core::{DType, Tensor};

use super::{ConditioningList, Entry, LatentArea, LatentSize, Moment};
use crate::error::Result;

/// What the sum of the multipliers begins with, so that places that nobody predicts are 0
/// (`calc_cond_batch`, `comfy/samplers.py`).
const BARELY: f64 = 1e-37;

impl ConditioningList {
    /// The prediction of this side for latents `x`, `[batch, channels, height, width]`, at a moment:
    /// the mean of what `unet` predicts for each active entry, weighed by its
    /// [`region`](Entry::region). `unet` is given the part of `x` that the entry is about, and
    /// returns a prediction of that shape. Computed in f32, in the type and on the device of `x`.
    pub fn predict(
        &self,
        x: &Tensor,
        moment: Moment<'_>,
        mut unet: impl FnMut(&Tensor, &Entry) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (batch, _, height, width) = x.dims4()?;
        let latent = LatentSize { height, width };
        let mut sum = Tensor::zeros(x.dims(), DType::F32, x.device())?;
        let weights = (batch, 1, height, width);
        let mut weight = Tensor::full(BARELY, weights, x.device())?.to_dtype(DType::F32)?;
        for entry in self.active_at(moment) {
            let region = entry.region(latent)?;
            let predicted = unet(&cut(x, region.area)?, entry)?.to_dtype(DType::F32)?;
            let multiplier = region.for_batch(batch)?.to_device(x.device())?;
            let counted = predicted.broadcast_mul(&multiplier)?;
            sum = (sum + placed(&counted, region.area, latent)?)?;
            weight = (weight + placed(&multiplier, region.area, latent)?)?;
        }
        Ok(sum.broadcast_div(&weight)?.to_dtype(x.dtype())?)
    }
}

/// Classifier-free guidance: `negative + (positive - negative) · scale`. At a scale of 1 the
/// negative side need not be predicted at all.
pub fn guided(positive: &Tensor, negative: &Tensor, scale: f64) -> Result<Tensor> {
    Ok((negative + ((positive - negative)? * scale)?)?)
}

fn cut(x: &Tensor, area: LatentArea) -> Result<Tensor> {
    let rows = x.narrow(2, area.y, area.height)?;
    Ok(rows.narrow(3, area.x, area.width)?.contiguous()?)
}

/// Zeros around it, to the size of the latents.
fn placed(part: &Tensor, area: LatentArea, latent: LatentSize) -> Result<Tensor> {
    let below = latent.height - area.y - area.height;
    let right = latent.width - area.x - area.width;
    let rows = part.pad_with_zeros(2, area.y, below)?;
    Ok(rows.pad_with_zeros(3, area.x, right)?)
}
