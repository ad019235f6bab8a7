//! ENCODED → CONDITIONING. Joins windows and encoders into what a U-Net takes.

mod assemble;
mod combine;
pub(crate) mod emphasis;
mod entries;
mod finite;
mod guidance;
mod lengths;
mod size;
mod timeline;

pub(crate) use assemble::assemble_with;
pub use assemble::{EncoderStates, assemble};
pub use emphasis::{Adv, Emphasis, EndRows, Interpretation, Masking, Normalization};
pub(crate) use entries::Attributes;
pub use entries::{
    Area, ConditioningList, Entry, LatentArea, LatentSize, Mask, MaskArea, Moment, PercentRange,
    Region, Side, SigmaTable, Sizes, Unclip, guided, pair_areas,
};
pub(crate) use finite::{cast, expect_finite};
pub use guidance::Guidance;
pub use lengths::common_length;
pub use size::{SizeHints, SizePrecision};
pub use timeline::{Span, Timeline, TimelineEntry, TimelinePart};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result, expect_type};
use crate::prompt::Note;
use crate::weights::Family;

/// Refuses types that hidden states lose their sense in: whole numbers, and those of less than 16 bits.
pub(crate) fn expect_state_type(dtype: DType) -> Result<()> {
    let known = [DType::F32, DType::F16, DType::BF16, DType::F64];
    expect_type("a conditioning", dtype, &known)
}

/// What a diffusion U-Net takes for one prompt. Batch first, batch of one.
#[derive(Clone, Debug)]
pub struct Conditioning {
    family: Family,
    context: Tensor,
    pooled: Option<Tensor>,
    time_ids: Option<Tensor>,
    notes: Vec<Note>,
}

impl Conditioning {
    /// Parts that belong together.
    ///
    /// `context` is `[batch, tokens, channels]`, `pooled` `[batch, projected]`, `time_ids`
    /// `[batch, 6]` (SDXL) or `[batch, 5]` (refiner) in f32.
    pub fn new(
        family: Family,
        context: Tensor,
        pooled: Option<Tensor>,
        time_ids: Option<Tensor>,
    ) -> Result<Conditioning> {
        let of_shape = |name, tensor: &Tensor, form: &str| {
            if tensor.rank() == form.split(',').count() {
                return Ok(tensor.dims()[0]);
            }
            let message = format!("shape {:?}; {form} is expected", tensor.dims());
            Err(Error::new(ErrorKind::TensorShape, message).at_tensor(name))
        };
        let batch = of_shape("context", &context, "[batch, tokens, channels]")?;
        for (name, other) in [("pooled", &pooled), ("time_ids", &time_ids)] {
            let Some(other) = other else { continue };
            let own = of_shape(name, other, "[batch, numbers]")?;
            if own != batch {
                let message = format!("batches differ: {batch} and {own}");
                return Err(Error::new(ErrorKind::Mismatch, message).at_tensor(name));
            }
        }
        Ok(Conditioning {
            family,
            context,
            pooled,
            time_ids,
            notes: Vec::new(),
        })
    }

    /// The family it was made for.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Hidden states for cross-attention: `[batch, 77 · windows, channels]` with 768 (SD 1),
    /// 1024 (SD 2), 2048 (SDXL, ViT-L first) or 1280 (refiner) channels.
    pub fn context(&self) -> &Tensor {
        &self.context
    }

    /// The pooled vector `[batch, 1280]`, for SDXL and its refiner, or where it was asked for.
    pub fn pooled(&self) -> Option<&Tensor> {
        self.pooled.as_ref()
    }

    /// SDXL's size numbers in pixels, f32: `[batch, 6]` height, width, top, left, target height,
    /// target width; the refiner's `[batch, 5]` height, width, top, left, aesthetic score.
    pub fn time_ids(&self) -> Option<&Tensor> {
        self.time_ids.as_ref()
    }

    /// What the U-Net adds to its time embedding ("ADM" vector, `y`): the pooled vector, then 256
    /// numbers for each of [`time_ids`](Self::time_ids). `[batch, 2816]` (SDXL), `[batch, 2560]`
    /// (refiner); `None` for the other families, and without the vector or the numbers.
    pub fn vector(&self) -> Result<Option<Tensor>> {
        match (self.family, &self.pooled, &self.time_ids) {
            (Family::Sdxl | Family::Refiner, Some(pooled), Some(time_ids)) => {
                let sizes = size::embed(time_ids)?.to_dtype(pooled.dtype())?;
                Ok(Some(Tensor::cat(&[pooled, &sizes], 1)?))
            }
            _ => Ok(None),
        }
    }

    /// Rows of the context: 77 for each window.
    pub fn tokens(&self) -> usize {
        self.context.dims().get(1).copied().unwrap_or_default()
    }

    /// What was cut, guessed or reproduced.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The same with hidden states and pooled vector replaced by zeros; sizes stay.
    pub fn zeroed(&self) -> Result<Conditioning> {
        let pooled = self.pooled.as_ref().map(Tensor::zeros_like).transpose()?;
        Ok(Conditioning {
            context: self.context.zeros_like()?,
            pooled,
            ..self.clone()
        })
    }

    /// The same with the hidden states replaced by zeros.
    pub(crate) fn with_zero_context(&self) -> Result<Conditioning> {
        Ok(Conditioning {
            context: self.context.zeros_like()?,
            ..self.clone()
        })
    }

    /// The same in f32, f16, bf16 or f64; time ids stay f32. Other types are refused, and on the CPU
    /// finite values that the type makes infinite.
    pub fn to_dtype(&self, dtype: DType) -> Result<Conditioning> {
        expect_state_type(dtype)?;
        let pooled = self.pooled.as_ref();
        let pooled = pooled.map(|pooled| cast("pooled", pooled, dtype));
        Ok(Conditioning {
            context: cast("context", &self.context, dtype)?,
            pooled: pooled.transpose()?,
            ..self.clone()
        })
    }

    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Result<Conditioning> {
        let move_to = |tensor: &Option<Tensor>| -> Result<Option<Tensor>> {
            Ok(tensor
                .as_ref()
                .map(|tensor| tensor.to_device(device))
                .transpose()?)
        };
        Ok(Conditioning {
            context: self.context.to_device(device)?,
            pooled: move_to(&self.pooled)?,
            time_ids: move_to(&self.time_ids)?,
            ..self.clone()
        })
    }

    pub(crate) fn with_notes(mut self, notes: Vec<Note>) -> Conditioning {
        self.notes = notes;
        self
    }

    /// Followed by rows of zeros until there are `tokens`.
    pub(crate) fn zero_filled_to(&self, tokens: usize) -> Result<Conditioning> {
        let more = tokens.saturating_sub(self.tokens());
        Ok(Conditioning {
            context: self.context.pad_with_zeros(1, 0, more)?,
            ..self.clone()
        })
    }

    /// Cut to `tokens` rows, or followed by the last row until there are as many.
    pub(crate) fn last_row_filled_to(&self, tokens: usize) -> Result<Conditioning> {
        let own = self.tokens();
        let context = if own >= tokens {
            self.context.narrow(1, 0, tokens)?
        } else {
            let last = self.context.narrow(1, own - 1, 1)?;
            Tensor::cat(&[&self.context, &last.repeat((1, tokens - own, 1))?], 1)?
        };
        Ok(Conditioning {
            context,
            ..self.clone()
        })
    }

    /// The same without size numbers.
    fn without_size(self) -> Conditioning {
        Conditioning {
            time_ids: None,
            ..self
        }
    }

    /// Rows repeated whole until there are `tokens`; an error unless that is a multiple of what is
    /// there. [`common_length`] tells how many two conditionings may be repeated to.
    pub fn tiled_to(&self, tokens: usize) -> Result<Conditioning> {
        let own = self.tokens();
        if own == 0 || tokens == 0 || !tokens.is_multiple_of(own) {
            let message = format!("{own} rows cannot be repeated to {tokens}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        let context = self.context.repeat((1, tokens / own, 1))?;
        Ok(Conditioning {
            context,
            ..self.clone()
        })
    }
}
