//! The kernels of `fused.cu`, compiled for the card and started on a stream.
#![expect(unsafe_code, reason = "kernels are started with raw pointers")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, LaunchArgs, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

use super::failure::{Tried, device_error};
use crate::error::Result;
use crate::kernels::Activation;
use crate::kernels::plan::{self, Kind, Launch};

/// Where something lies in the card's memory; 0 is "none".
pub(super) type Address = CUdeviceptr;

/// Compute capability from which f16 and bf16 fragments of 16 × 8 × 16 exist.
const TENSOR_CORES: (i32, i32) = (8, 0);

/// The kernels for one type of matrices.
#[derive(Debug)]
pub(super) struct Functions {
    embed_norm: CudaFunction,
    residual_norm: CudaFunction,
    norm_rows: CudaFunction,
    bias_activate: CudaFunction,
    attention: CudaFunction,
    tensor_cores: bool,
}

/// Scale and shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormAddress {
    pub(super) weight: Address,
    pub(super) bias: Address,
}

impl Functions {
    pub(super) fn load(context: &Arc<CudaContext>, kind: Kind) -> Result<Functions> {
        let capability = context.compute_capability().tried("tell the card's kind")?;
        let module = context
            .load_module(compiled(kind, capability)?)
            .tried("load the compiled kernels")?;
        let tensor_cores = capability >= TENSOR_CORES && kind != Kind::F32;
        let named = |name: &str| {
            let name = format!("{name}_{}", kind.suffix());
            module
                .load_function(&name)
                .tried(&format!("find the kernel {name}"))
        };
        Ok(Functions {
            embed_norm: named("embed_norm")?,
            residual_norm: named("residual_norm")?,
            norm_rows: named("norm_rows")?,
            bias_activate: named("bias_activate")?,
            attention: named(if tensor_cores {
                "attention_tensor"
            } else {
                "attention_plain"
            })?,
            tensor_cores,
        })
    }

    /// ids → `x` and its norm.
    pub(super) fn embed_norm(
        &self,
        stream: &CudaStream,
        [rows, width]: [usize; 2],
        [ids, table, positions]: [Address; 3],
        norm: NormAddress,
        [x, normed]: [Address; 2],
    ) -> Result<()> {
        let (launch, columns) = (by_rows(rows, width)?, narrow(width)?);
        let mut args = stream.launch_builder(&self.embed_norm);
        args.arg(&ids).arg(&table).arg(&positions);
        args.arg(&norm.weight)
            .arg(&norm.bias)
            .arg(&x)
            .arg(&normed)
            .arg(&columns);
        started(args, launch, "embed_norm")
    }

    /// `x += product + bias`; `kept` and `normed` may be 0.
    pub(super) fn residual_norm(
        &self,
        stream: &CudaStream,
        [rows, width]: [usize; 2],
        [product, bias]: [Address; 2],
        norm: NormAddress,
        [x, kept, normed]: [Address; 3],
    ) -> Result<()> {
        let (launch, columns) = (by_rows(rows, width)?, narrow(width)?);
        let mut args = stream.launch_builder(&self.residual_norm);
        args.arg(&product)
            .arg(&bias)
            .arg(&norm.weight)
            .arg(&norm.bias);
        args.arg(&x).arg(&kept).arg(&normed).arg(&columns);
        started(args, launch, "residual_norm")
    }

    /// The norm of `rows` rows of `x`: all, or those that `ends` names; `plain` and `narrow` may be 0.
    pub(super) fn norm_rows(
        &self,
        stream: &CudaStream,
        [rows, width]: [usize; 2],
        [x, ends]: [Address; 2],
        norm: NormAddress,
        [plain, narrowed]: [Address; 2],
    ) -> Result<()> {
        let (launch, columns) = (by_rows(rows, width)?, narrow(width)?);
        let mut args = stream.launch_builder(&self.norm_rows);
        args.arg(&x).arg(&ends).arg(&norm.weight).arg(&norm.bias);
        args.arg(&plain).arg(&narrowed).arg(&columns);
        started(args, launch, "norm_rows")
    }

    /// `from` and its bias (0 is none) through the non-linearity; `from` may be `to`.
    pub(super) fn bias_activate(
        &self,
        stream: &CudaStream,
        [rows, width]: [usize; 2],
        [from, bias, to]: [Address; 3],
        activation: Activation,
    ) -> Result<()> {
        let (launch, n_eights) = plan::eights(rows, width).ok_or_else(|| odd_shape(rows, width))?;
        let which: i32 = match activation {
            Activation::QuickGelu => 0,
            Activation::GeluErf => 1,
            Activation::GeluTanh => 2,
        };
        let columns = narrow(width)?;
        let mut args = stream.launch_builder(&self.bias_activate);
        args.arg(&from)
            .arg(&bias)
            .arg(&to)
            .arg(&columns)
            .arg(&which)
            .arg(&n_eights);
        started(args, launch, "bias_activate")
    }

    /// Stacked query, key and value → mixed values; `bias` and `hidden_keys` may be 0.
    pub(super) fn attention(
        &self,
        stream: &CudaStream,
        [windows, heads]: [usize; 2],
        [stacked, bias, hidden_keys, mixed]: [Address; 4],
    ) -> Result<()> {
        let launch = plan::attention(windows, heads, self.tensor_cores);
        let launch = launch.ok_or_else(|| odd_shape(windows, heads))?;
        let mut args = stream.launch_builder(&self.attention);
        args.arg(&stacked).arg(&bias).arg(&hidden_keys).arg(&mixed);
        started(args, launch, "attention")
    }
}

/// For the card itself; a compiler that is older than the card makes code for an older one.
fn compiled(kind: Kind, (major, minor): (i32, i32)) -> Result<Ptx> {
    let source = plan::source(kind);
    let own = 10 * major + minor;
    let older = [90, 80, 75].into_iter().filter(|older| *older < own);
    let mut failure = None;
    for target in std::iter::once(own).chain(older) {
        let options = CompileOptions {
            options: vec![
                format!("--gpu-architecture=compute_{target}"),
                "--std=c++17".to_owned(),
            ],
            ..CompileOptions::default()
        };
        match compile_ptx_with_opts(&source, options) {
            Ok(ptx) => return Ok(ptx),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or_else(
        || Err(odd_shape(0, 0)),
        |error| Err(error).tried("compile the kernels"),
    )
}

fn by_rows(rows: usize, width: usize) -> Result<Launch> {
    plan::row_blocks(rows, width).ok_or_else(|| odd_shape(rows, width))
}

fn narrow(width: usize) -> Result<i32> {
    i32::try_from(width).map_err(|_| odd_shape(1, width))
}

fn odd_shape(rows: usize, width: usize) -> crate::error::Error {
    device_error(format!("no CUDA kernel takes {rows} × {width}"))
}

fn started(mut args: LaunchArgs<'_>, launch: Launch, name: &str) -> Result<()> {
    let config = LaunchConfig {
        grid_dim: (launch.blocks.0, launch.blocks.1, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the callers above give what the kernel of that name takes, in its order, and buffers
    // of the sizes that `plan::Sizes` and the tensors' checked shapes say.
    let result = unsafe { args.launch(config) };
    result
        .map(|_| ())
        .tried(&format!("start the kernel {name}"))
}
