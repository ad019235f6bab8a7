//! A tensor's place in the card's memory.
#![expect(
    unsafe_code,
    reason = "uninitialised tensors are made to be written by kernels"
)]

use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr};
use candle_core::cuda_backend::{CudaDType, CudaStorage};
use candle_core::{DType, Device, Storage, Tensor};
use half::{bf16, f16};

use super::functions::Address;
use crate::error::Result;
use crate::kernels::plan::Kind;

/// Where a contiguous tensor begins; `None` if it is not contiguous, not on a card, or of a type that
/// the kernels do not take. It stays there as long as the tensor or a clone of it lives.
pub(super) fn address(tensor: &Tensor, stream: &CudaStream) -> Option<(Address, Kind)> {
    let kind = Kind::of(tensor.dtype())?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, _) = layout.contiguous_offsets()?;
    let Storage::Cuda(storage) = &*storage else {
        return None;
    };
    let base = match kind {
        Kind::F32 => base::<f32>(storage, stream),
        Kind::F16 => base::<f16>(storage, stream),
        Kind::Bf16 => base::<bf16>(storage, stream),
    };
    Some((base? + (start * kind.bytes()) as Address, kind))
}

fn base<T: CudaDType>(storage: &CudaStorage, stream: &CudaStream) -> Option<Address> {
    let slice = storage.as_cuda_slice::<T>().ok()?;
    let (address, _record) = slice.device_ptr(stream);
    Some(address)
}

/// A new f32 tensor whose values are anything, and its place. The caller writes all of it on `stream`.
pub(super) fn unwritten(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: every caller enqueues a kernel or copy that fills the tensor on the stream on which
    // all later uses of it are enqueued.
    Ok(unsafe { Tensor::empty(shape, dtype, device) }?)
}
