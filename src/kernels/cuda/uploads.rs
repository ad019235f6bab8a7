//! Values for a card in memory that it reads by itself (page-locked), a part at a time: what is in other
//! memory the driver copies there first, on the thread that asks.
#![expect(
    unsafe_code,
    reason = "copies are asked for by address, and events say when they are done"
)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, DevicePtrMut, DeviceRepr, PinnedHostSlice, result,
};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Storage, Tensor};
use half::{bf16, f16};

use super::failure::{Tried, device_error};
use super::functions::Address;
use crate::error::Result;
use crate::uploads::{Fill, Uploads};

/// Bytes of a part: many steps of reading, so that all threads have some.
const PART: usize = 8 << 20;

/// Parts that are filled or under way at once, for one thread.
const PARTS: usize = 3;

/// Parts that are used over and over.
pub(super) struct CudaUploads {
    device: CudaDevice,
    waiting: Mutex<VecDeque<Part>>,
}

impl CudaUploads {
    pub(super) fn new(device: &CudaDevice) -> CudaUploads {
        CudaUploads {
            device: device.clone(),
            waiting: Mutex::default(),
        }
    }

    fn typed<T: CudaDType + DeviceRepr>(
        &self,
        n_values: usize,
        fill: &mut Fill<'_>,
    ) -> Result<Tensor> {
        let stream = self.device.cuda_stream();
        // SAFETY: all values are copied there below, before anything else on this stream.
        let mut values = unsafe { self.device.alloc::<T>(n_values) }?;
        {
            let (start, _written) = values.device_ptr_mut(&stream);
            let sent = self.send_all(&stream, start, (n_values, size_of::<T>()), fill);
            if sent.is_err() {
                // Nothing may be dropped while the card still reads it; the first error is told.
                let _ = stream.synchronize();
            }
            sent?;
        }
        let storage = CudaStorage::wrap_cuda_slice(values, self.device.clone());
        let plain = BackpropOp::none();
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            n_values,
            plain,
            false,
        ))
    }

    /// To this address, part after part.
    fn send_all(
        &self,
        stream: &CudaStream,
        start: Address,
        (n_values, size): (usize, usize),
        fill: &mut Fill<'_>,
    ) -> Result<()> {
        for first in (0..n_values).step_by(PART / size) {
            let count = (PART / size).min(n_values - first);
            let mut part = self.part(stream.context())?;
            fill(first, &mut part.room()?[..count * size])?;
            part.send(count * size, start + (first * size) as Address, stream)?;
            self.waiting().push_back(part);
        }
        Ok(())
    }

    /// The one that was sent first, once there are enough.
    fn part(&self, context: &Arc<CudaContext>) -> Result<Part> {
        let oldest = {
            let mut waiting = self.waiting();
            let enough = waiting.len() >= PARTS;
            enough.then(|| waiting.pop_front()).flatten()
        };
        oldest.map_or_else(|| Part::new(context), Ok)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Part>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uploads for CudaUploads {
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
}

impl fmt::Debug for CudaUploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaUploads")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Memory that the card reads, and the end of the copy that last did.
struct Part {
    room: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Part {
    /// Not of the kind that is fast to write and slow to read: values are looked at after they are read.
    fn new(context: &Arc<CudaContext>) -> Result<Part> {
        // SAFETY: it is written right below.
        let room = unsafe { context.alloc_pinned_with_flags::<u8>(PART, 0) };
        let mut room = room.tried("allocate memory of the host")?;
        let start = room.as_mut_ptr().tried("wait for a copy")?;
        // SAFETY: there are so many bytes, which nobody else has.
        unsafe { start.write_bytes(0, PART) };
        let copied = context.new_event(None).tried("make an event")?;
        Ok(Part { room, copied })
    }

    /// Its bytes, once no copy reads them.
    fn room(&mut self) -> Result<&mut [u8]> {
        self.copied.synchronize().tried("wait for a copy")?;
        self.room.as_mut_slice().tried("wait for a copy")
    }

    /// Copies the first bytes when the stream gets there.
    fn send(&mut self, n_bytes: usize, to: Address, stream: &CudaStream) -> Result<()> {
        let from = &self.room()?[..n_bytes];
        // SAFETY: there is room for as many at the address, and what is read stays as it is until the
        // event below: `room` and `drop` wait for it.
        let copied = unsafe { result::memcpy_htod_async(to, from, stream.cu_stream()) };
        copied.tried("copy to the card")?;
        let recorded = self.copied.record(stream);
        if recorded.is_err() {
            let _ = stream.synchronize(); // no event will say when this copy is done
        }
        recorded.tried("record an event")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What fails here has failed before, where it was told.
        let _ = self.copied.synchronize();
    }
}
