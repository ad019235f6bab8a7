//! How much of the card's memory is in use, and what becomes of what is freed.
#![expect(
    unsafe_code,
    reason = "attributes of the memory pool are read by address"
)]

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};

use super::failure::Tried;
use crate::error::Result;
use crate::kernels::DeviceMemory;

use sys::CUmemPool_attribute as Attribute;

pub(crate) fn memory(device: &CudaDevice) -> Result<DeviceMemory> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let (free, total) = context
        .mem_get_info()
        .tried("tell how much memory is free")?;
    let pooled = |attribute| pool(context).and_then(|pool| read(pool, attribute));
    Ok(DeviceMemory {
        free: free as u64,
        total: total as u64,
        used: pooled(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT),
        peak: pooled(Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH),
    })
}

pub(crate) fn release_unused(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    // This thread's work only: the whole context may not wait while another thread captures.
    stream.synchronize().tried("finish its work")?;
    let Some(pool) = pool(context) else {
        return Ok(());
    };
    // SAFETY: the pool is the device's own, which is never destroyed.
    unsafe { result::mem_pool::trim_to(pool, 0) }.tried("give memory back")
}

/// By default the pool gives what is freed back to the system at every synchronisation, so that every
/// forward maps it anew. It keeps it if nobody has chosen anything else for this process.
pub(super) fn keep_freed(context: &CudaContext) {
    const ATTRIBUTE: Attribute = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let Some(pool) = pool(context) else {
        return;
    };
    if read(pool, ATTRIBUTE) == Some(0) {
        let mut all = u64::MAX;
        // SAFETY: the pool is the device's own; this attribute is a 64-bit number. If it cannot be
        // set, everything works as before, more slowly.
        let _ = unsafe { result::mem_pool::set_attribute(pool, ATTRIBUTE, (&raw mut all).cast()) };
    }
}

fn pool(context: &CudaContext) -> Option<sys::CUmemoryPool> {
    if !context.has_async_alloc() {
        return None;
    }
    context.bind_to_thread().ok()?;
    // SAFETY: the device is the context's.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }.ok()
}

fn read(pool: sys::CUmemoryPool, attribute: Attribute) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: the pool is the device's own; the attributes asked for are 64-bit numbers.
    let read = unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) };
    read.ok().map(|()| value)
}
