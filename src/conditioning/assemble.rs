//! Windows joined on the token axis, encoders on the channel axis.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::{EncoderId, Family};

use super::{Conditioning, SizeHints, SizePrecision, size};

/// One encoder's contribution to one prompt.
#[derive(Clone, Debug)]
pub struct EncoderStates {
    /// Which encoder.
    pub encoder: EncoderId,
    /// `[windows, rows, width]`, in the order of the windows.
    pub hidden: Tensor,
    /// `[1, projected]`, of the window that the tool pools.
    pub pooled: Option<Tensor>,
}

/// Joins what the encoders of a family gave. `states` come in the family's order (ViT-L first).
///
/// The pooled vector is the last encoder's that made one: bigG's for SDXL.
pub fn assemble(family: Family, states: &[EncoderStates], dtype: DType) -> Result<Conditioning> {
    assemble_with(family, states, dtype, Ok)
}

/// The same with something done to the joined rows (`[rows, channels of all encoders]`) before they
/// get their type.
pub(crate) fn assemble_with(
    family: Family,
    states: &[EncoderStates],
    dtype: DType,
    joined: impl FnOnce(Tensor) -> Result<Tensor>,
) -> Result<Conditioning> {
    let rows = states
        .iter()
        .map(|one| one.hidden.flatten_to(1))
        .collect::<Result<Vec<_>, _>>()?;
    let lengths: Vec<usize> = rows.iter().map(|rows| rows.dims()[0]).collect();
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        let message = format!("the encoders gave different lengths: {lengths:?}");
        return Err(Error::new(ErrorKind::Mismatch, message));
    }
    let context = joined(Tensor::cat(&rows, 1)?)?;
    let context = context.unsqueeze(0)?.to_dtype(dtype)?;
    let pooled = states.iter().rev().find_map(|one| one.pooled.as_ref());
    let pooled = pooled.map(|pooled| pooled.to_dtype(dtype)).transpose()?;
    Conditioning::new(family, context, pooled, None)
}

impl Conditioning {
    /// Adds the size numbers of families that take them.
    pub(crate) fn with_size(
        mut self,
        hints: &SizeHints,
        negative: bool,
        held: (SizePrecision, DType),
        device: &Device,
    ) -> Result<Conditioning> {
        if let Some(numbers) = hints.numbers(self.family, negative) {
            self.time_ids = Some(size::time_ids(&numbers, held, device)?);
        }
        Ok(self)
    }

    /// The same with these size numbers in f32, for families that take them.
    pub(super) fn sized(self, hints: &SizeHints, negative: bool) -> Result<Conditioning> {
        let device = self.context.device().clone();
        self.with_size(hints, negative, (SizePrecision::Full, DType::F32), &device)
    }
}
