//! STORED BYTES → VALUES IN THEIR PLACE: no second copy of a tensor is made.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use half::vec::HalfBitsVecExt as _;
use half::{bf16, f16};

use super::archive::Archive;
use super::converting::Place;
use super::decode::Flaw;
use super::pieces::Pieces;
use crate::error::Result;
use crate::pages;

/// Room for the values of some pieces.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    pieces: Pieces<'a>,
    values: Values,
    /// Where in their room the values lie.
    place: Range<usize>,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    /// Bits, because room for these is zero pages that cost nothing.
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

impl<'a> Filling<'a> {
    /// Room for pieces in the type wanted; a GPU widens large ones itself. `None` for other types.
    pub(crate) fn new(pieces: Pieces<'a>, want: DType, device: &Device) -> Option<Filling<'a>> {
        let n_values = pieces.n_values();
        let (values, skipped) = Values::room(pieces.sent_as(want, device), n_values)?;
        // Elsewhere than here a room begins as its device wants it.
        let skipped = if device.is_cpu() { skipped } else { 0 };
        Some(Filling {
            pieces,
            values,
            place: skipped..skipped + n_values,
        })
    }

    /// Reads all of them; what is wrong with each, if anything.
    pub(crate) fn read(&mut self, archive: &Archive) -> Result<Vec<Option<Flaw>>> {
        let mut job = self.pieces.job(archive, self.values.dtype());
        let place = self.place.clone();
        job.fill(
            0,
            match &mut self.values {
                Values::F32(all) => Place::F32(&mut all[place]),
                Values::F16(all) => Place::F16(&mut all[place]),
                Values::Bf16(all) => Place::Bf16(&mut all[place]),
            },
        )?;
        Ok(job.flaws())
    }

    /// Tensors of these shapes, one after the other, on their device. Several share one room.
    pub(crate) fn finish(
        self,
        shapes: &[Vec<usize>],
        want: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let (first, n_values) = (self.place.start, self.place.len());
        let whole = self.values.tensor()?.narrow(0, first, n_values)?;
        let whole = whole.to_device(device)?.to_dtype(want)?;
        if let [shape] = shapes {
            return Ok(vec![whole.reshape(shape.as_slice())?]);
        }
        let mut start = 0;
        let parts = shapes.iter().map(|shape| {
            let n_values = shape.iter().product();
            let part = whole.narrow(0, start, n_values)?;
            start += n_values;
            Ok(part.reshape(shape.as_slice())?)
        });
        parts.collect()
    }
}

impl Values {
    /// Room for so many, and how many to skip; `None` for other types.
    fn room(dtype: DType, n_values: usize) -> Option<(Values, usize)> {
        Some(match dtype {
            DType::F32 => {
                let (values, skipped) = pages::room(n_values);
                (Values::F32(values), skipped)
            }
            DType::F16 => {
                let (bits, skipped) = pages::room(n_values);
                (Values::F16(bits), skipped)
            }
            DType::BF16 => {
                let (bits, skipped) = pages::room(n_values);
                (Values::Bf16(bits), skipped)
            }
            _ => return None,
        })
    }

    fn tensor(self) -> Result<Tensor> {
        let (cpu, n_values) = (&Device::Cpu, self.len());
        Ok(match self {
            Values::F32(values) => Tensor::from_vec(values, n_values, cpu)?,
            Values::F16(bits) => Tensor::from_vec(bits.reinterpret_into::<f16>(), n_values, cpu)?,
            Values::Bf16(bits) => Tensor::from_vec(bits.reinterpret_into::<bf16>(), n_values, cpu)?,
        })
    }

    fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::BF16,
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F16(bits) | Values::Bf16(bits) => bits.len(),
        }
    }
}
