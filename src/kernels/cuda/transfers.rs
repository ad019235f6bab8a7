//! Large tensors to the card and from it, by way of [memory that it reads and writes itself](super::pinned).
#![expect(
    unsafe_code,
    reason = "uninitialised tensors are made to be written by copies"
)]

use std::collections::VecDeque;
use std::fmt;

use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Storage, Tensor};
use half::{bf16, f16};

use super::failure::device_error;
use super::functions::Address;
use super::pinned::{PART, PARTS, Part, Parts};
use super::tensors::address;
use crate::error::Result;
use crate::transfers::{Fill, Take, Transfers};

pub(super) struct CudaTransfers {
    device: CudaDevice,
    parts: Parts,
}

/// Some values of a tensor: the first one's number, and how many bytes they are.
#[derive(Clone, Copy)]
struct Values {
    first: usize,
    n_bytes: usize,
}

/// So many values of this size, part by part, and where each part's bytes begin.
fn values(n_values: usize, size: usize) -> impl Iterator<Item = (Values, Address)> {
    let each = (0..n_values).step_by(PART / size);
    each.map(move |first| {
        let n_bytes = (n_values - first).min(PART / size) * size;
        (Values { first, n_bytes }, (first * size) as Address)
    })
}

impl CudaTransfers {
    pub(super) fn new(device: &CudaDevice) -> CudaTransfers {
        CudaTransfers {
            device: device.clone(),
            parts: Parts::default(),
        }
    }

    fn typed<T: CudaDType + DeviceRepr>(
        &self,
        n_values: usize,
        fill: &mut Fill<'_>,
    ) -> Result<Tensor> {
        let stream = self.device.cuda_stream();
        // SAFETY: all values are copied there below, before anything else on this stream.
        let mut there = unsafe { self.device.alloc::<T>(n_values) }?;
        {
            let (start, _written) = there.device_ptr_mut(&stream);
            for (values, offset) in values(n_values, size_of::<T>()) {
                let mut part = self.parts.take(stream.context())?;
                fill(values.first, &mut part.room()?[..values.n_bytes])?;
                part.send(values.n_bytes, start + offset, &stream)?;
                self.parts.give_back(part);
            }
        }
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(there, self.device.clone()));
        let plain = BackpropOp::none();
        Ok(Tensor::from_storage(storage, n_values, plain, false))
    }

    /// Hands out what a part has received.
    fn taken(&self, (values, mut part): (Values, Part), take: &mut Take<'_>) -> Result<()> {
        take(values.first, &part.room()?[..values.n_bytes])?;
        self.parts.give_back(part);
        Ok(())
    }

    fn receive(
        &self,
        stream: &CudaStream,
        (values, from): (Values, Address),
    ) -> Result<(Values, Part)> {
        let mut part = self.parts.take(stream.context())?;
        part.receive(values.n_bytes, from, stream)?;
        Ok((values, part))
    }
}

impl Transfers for CudaTransfers {
    fn upload(&self, dtype: DType, n_values: usize, fill: &mut Fill<'_>) -> Result<Tensor> {
        match dtype {
            DType::F32 => self.typed::<f32>(n_values, fill),
            DType::F16 => self.typed::<f16>(n_values, fill),
            DType::BF16 => self.typed::<bf16>(n_values, fill),
            other => Err(device_error(format!(
                "no values of type {other:?} are sent"
            ))),
        }
    }

    fn download(&self, tensor: &Tensor, take: &mut Take<'_>) -> Result<()> {
        let stream = self.device.cuda_stream();
        let Some((start, kind)) = address(tensor, &stream) else {
            let message =
                "a tensor is fetched that is not contiguous, not on a card, or of another type";
            return Err(device_error(message));
        };
        let mut under_way = VecDeque::new();
        for (values, offset) in values(tensor.elem_count(), kind.bytes()) {
            under_way.push_back(self.receive(&stream, (values, start + offset))?);
            if under_way.len() == PARTS
                && let Some(oldest) = under_way.pop_front()
            {
                self.taken(oldest, take)?;
            }
        }
        under_way
            .into_iter()
            .try_for_each(|part| self.taken(part, take))
    }
}

impl fmt::Debug for CudaTransfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaTransfers")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
