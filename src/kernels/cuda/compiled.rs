//! Our kernels, compiled for the card that is there.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaModule};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

use super::failure::{Tried, device_error};
use crate::error::Result;
use crate::kernels::plan::{self, Kind};

/// A module, and the compute capability that it was compiled for, times ten: 90 for 9.0.
pub(super) fn module(context: &Arc<CudaContext>, kind: Kind) -> Result<(Arc<CudaModule>, i32)> {
    let capability = context.compute_capability().tried("tell the card's kind")?;
    let (text, target) = compiled(kind, capability)?;
    let module = context.load_module(text);
    Ok((module.tried("load the compiled kernels")?, target))
}

/// For the card itself; a compiler that is older than the card makes code for an older one.
fn compiled(kind: Kind, (major, minor): (i32, i32)) -> Result<(Ptx, i32)> {
    let source = plan::source(kind);
    let own = 10 * major + minor;
    let older = [90, 80, 75].into_iter().filter(|older| *older < own);
    let mut failure = None;
    for target in std::iter::once(own).chain(older) {
        let options = CompileOptions {
            options: vec![
                format!("--gpu-architecture=compute_{target}"),
                "--std=c++17".to_owned(),
                "--device-as-default-execution-space".to_owned(), // of lambdas
            ],
            ..CompileOptions::default()
        };
        match compile_ptx_with_opts(&source, options) {
            Ok(text) => return Ok((text, target)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or_else(
        || Err(device_error("there is nothing to compile the kernels for")),
        |error| Err(error).tried("compile the kernels"),
    )
}
