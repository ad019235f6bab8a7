//! A kernel is started: on a stream, in the manner in which kernels are to follow each other there.
#![expect(unsafe_code, reason = "kernels are started with raw pointers")]

use std::ffi::{c_int, c_void};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, sys};

use super::failure::Tried;
use super::functions::Address;
use crate::error::Result;
use crate::kernels::plan::Launch;

/// Where a kernel is started, and how it follows the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct On<'a> {
    pub(super) stream: &'a CudaStream,
    /// It may start while the one before drains: that one must be a kernel, and this one must await it.
    pub(super) overlap: bool,
    /// Memory to ask for before it begins: place and bytes, no bytes for none.
    pub(super) ahead: (Address, u64),
}

impl On<'_> {
    /// After everything before, asking for nothing.
    pub(super) fn plainly(stream: &CudaStream) -> On<'_> {
        On {
            stream,
            overlap: false,
            ahead: (0, 0),
        }
    }
}

/// What a kernel is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    Address(Address),
    Int(i32),
    Size(u64),
}

impl Arg {
    fn pointer(&self) -> *mut c_void {
        match self {
            Arg::Address(value) | Arg::Size(value) => (&raw const *value).cast_mut().cast(),
            Arg::Int(value) => (&raw const *value).cast_mut().cast(),
        }
    }
}

/// Starts a kernel.
///
/// # Safety
///
/// `args` are what the kernel takes, in its order; its buffers are as large as it believes, and live until
/// the stream has run.
pub(super) unsafe fn start(
    on: On<'_>,
    (function, name): (&CudaFunction, &str),
    launch: Launch,
    args: &[Arg],
) -> Result<()> {
    let context = on.stream.context();
    context.bind_to_thread().tried("use the card")?;
    let mut pointers: Vec<*mut c_void> = args.iter().map(Arg::pointer).collect();
    let mut attribute = overlapping();
    let config = sys::CUlaunchConfig {
        gridDimX: launch.blocks.0,
        gridDimY: launch.blocks.1,
        gridDimZ: 1,
        blockDimX: launch.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared,
        hStream: on.stream.cu_stream(),
        attrs: &raw mut attribute,
        numAttrs: u32::from(on.overlap),
    };
    let (function, none) = (function.cu_function(), std::ptr::null_mut());
    // SAFETY: the configuration and the pointers live until the call is over; the rest is the caller's.
    let status =
        unsafe { sys::cuLaunchKernelEx(&raw const config, function, pointers.as_mut_ptr(), none) };
    status.result().tried(&format!("start the kernel {name}"))
}

/// "May start before the one before has ended."
fn overlapping() -> sys::CUlaunchAttribute {
    let allowed: c_int = 1;
    let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
    value.programmaticStreamSerializationAllowed = allowed;
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value,
    }
}
