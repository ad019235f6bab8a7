//! Where an encoder's forwards put what they make: one piece of the card's memory, and one of the host's
//! for what is uploaded.
#![expect(unsafe_code, reason = "memory is taken without being written")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, PinnedHostSlice, result,
};

use super::failure::{Tried, device_error};
use super::functions::Address;
use super::library::{Operands, WORKSPACE};
use crate::error::Result;
use crate::kernels::plan::{Arena, Place, Sizes, input_parts, input_words};

#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) arena: Arena,
    pub(super) base: Address,
    pub(super) host: PinnedHostSlice<u32>,
    _device: CudaSlice<u8>,
}

/// Where results go: the first rows of a buffer, to an address on candle's stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) from: Place,
    pub(super) to: Address,
}

impl Buffers {
    /// For up to so many windows.
    pub(super) fn new(
        context: &Arc<CudaContext>,
        stream: &Arc<CudaStream>,
        sizes: &Sizes,
        windows: usize,
    ) -> Result<Buffers> {
        let arena = sizes.arena(windows, WORKSPACE);
        let arena = arena.ok_or_else(|| device_error("the buffers are too large"))?;
        // SAFETY: bytes have no invalid values; every buffer is written before it is read (a test of
        // `plan` holds the steps to that).
        let device = unsafe { stream.alloc::<u8>(arena.size) };
        let device = device.tried(&format!("allocate {} bytes", arena.size))?;
        // SAFETY: the engine writes what is uploaded before it is.
        let host = unsafe { context.alloc_pinned::<u32>(input_words(windows)) };
        let host = host.tried("allocate memory of the host")?;
        let base = device.device_ptr(stream).0;
        Ok(Buffers {
            arena,
            base,
            host,
            _device: device,
        })
    }

    pub(super) fn at(&self, place: Place) -> Address {
        self.base + self.arena.start(place) as Address
    }

    /// Scratch memory of the products: [`WORKSPACE`] bytes.
    pub(super) fn workspace(&self) -> Address {
        self.base + self.arena.workspace as Address
    }

    /// Ids, ends and hidden keys of a batch of this size.
    pub(super) fn inputs(&self, windows: usize) -> [Address; 3] {
        let start = self.base + self.arena.input as Address;
        let [ends, hidden_keys] = input_parts(windows).map(|word| start + 4 * word as Address);
        [start, ends, hidden_keys]
    }

    pub(super) fn operands(&self, weight: Address, from: Place, to: Place) -> Operands {
        Operands {
            weight,
            x: self.at(from),
            out: self.at(to),
            workspace: self.workspace(),
        }
    }
}

/// Values of ordinary memory, which is free again when this returns: the driver has its copy.
pub(super) fn send(stream: &CudaStream, values: &[f32], to: Address) -> Result<()> {
    // SAFETY: the target lies in a buffer of at least that many bytes that lives until the stream has run.
    let copied = unsafe { result::memcpy_htod_async(to, values, stream.cu_stream()) };
    copied.tried("upload a vector")
}

/// From one place of the card to another, on this stream.
pub(super) fn copy(stream: &CudaStream, from: Address, to: Address, bytes: usize) -> Result<()> {
    // SAFETY: both lie in buffers of at least that many bytes that live until the stream has run.
    let copied = unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) };
    copied.tried("copy on the card")
}
