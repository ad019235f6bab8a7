//! Our kernels, ready to be started.
#![expect(unsafe_code, reason = "kernels are started with raw pointers")]

use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;

use super::compiled::Compiler;
use super::failure::device_error;
use super::many_rows::ManyRows;
use super::own_products::OwnProducts;
use super::start::{Arg, On, start};
use crate::error::Result;
use crate::kernels::Activation;
use crate::kernels::plan::{self, Kind, Launch, Text};

/// Where something lies in the card's memory; 0 is "none".
pub(super) type Address = CUdeviceptr;

/// Compute capability, times ten, from which f16 and bf16 fragments of 16 × 8 × 16 exist.
const TENSOR_CORES: i32 = 80;

/// The driver's version from which it can be captured that a kernel awaits the one before.
const OVERLAP: i32 = 12_040;

/// The kernels for one type of matrices.
#[derive(Debug)]
pub(super) struct Functions {
    embed_norm: CudaFunction,
    /// For products in one piece, and in several.
    residual_norm: [CudaFunction; 2],
    norm_rows: CudaFunction,
    bias_activate: CudaFunction,
    attention: CudaFunction,
    many: ManyRows,
    /// None without tensor cores.
    pub(super) products: Option<OwnProducts>,
    tensor_cores: bool,
    /// Whether kernels may start while the one before drains.
    pub(super) overlap: bool,
}

/// Scale and shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormAddress {
    pub(super) weight: Address,
    pub(super) bias: Address,
}

/// What becomes of our own product's sums where they are rounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finish {
    /// 0 is none.
    pub(super) bias: Address,
    pub(super) activation: Option<Activation>,
}

impl Functions {
    pub(super) fn load(compiler: Compiler, driver: i32) -> Result<Functions> {
        let module = compiler.module(Text::Fused)?;
        let target = module.target;
        let tensor_cores = target >= TENSOR_CORES && compiler.kind != Kind::F32;
        let attention = if tensor_cores {
            "attention_tensor"
        } else {
            "attention_plain"
        };
        Ok(Functions {
            embed_norm: module.function("embed_norm")?,
            residual_norm: [
                module.function("residual_norm")?,
                module.function("residual_norm_planes")?,
            ],
            norm_rows: module.function("norm_rows")?,
            bias_activate: module.function("bias_activate")?,
            attention: module.function(attention)?,
            many: ManyRows::new(compiler.clone()),
            products: tensor_cores.then(|| OwnProducts::new(compiler)),
            tensor_cores,
            overlap: module.awaits() && driver >= OVERLAP,
        })
    }

    /// Those of a card that has them.
    pub(super) fn own_products(&self) -> Result<&OwnProducts> {
        let own = self.products.as_ref();
        own.ok_or_else(|| device_error("this card does not run our own products"))
    }

    /// ids → `x` and its norm.
    pub(super) fn embed_norm(
        &self,
        on: On<'_>,
        [rows, width]: [usize; 2],
        [ids, table, positions]: [Address; 3],
        norm: NormAddress,
        [x, normed]: [Address; 2],
    ) -> Result<()> {
        let from = [ids, table, positions].map(Arg::Address);
        let to = [norm.weight, norm.bias, x, normed].map(Arg::Address);
        let rest = [Arg::Int(narrow(width)?), Arg::Address(on.ahead.0)];
        let args = [&from[..], &to, &rest, &[Arg::Size(on.ahead.1)]].concat();
        let function = (&self.embed_norm, "embed_norm");
        // SAFETY: as the kernel takes them; sizes are those of `plan::Sizes`.
        unsafe { start(on, function, by_rows(rows, width)?, &args) }
    }

    /// `x += product + bias`, the product in so many planes; `kept` and `normed` may be 0.
    pub(super) fn residual_norm(
        &self,
        on: On<'_>,
        [rows, width]: [usize; 2],
        ((product, planes), bias): ((Address, usize), Address),
        norm: NormAddress,
        to: [Address; 3],
    ) -> Result<()> {
        let by = [bias, norm.weight, norm.bias].map(Arg::Address);
        let rest = [Arg::Int(narrow(width)?), Arg::Address(on.ahead.0)];
        let rest = [&to.map(Arg::Address)[..], &rest, &[Arg::Size(on.ahead.1)]].concat();
        if let (1, Some((launch, place))) = (planes, plan::row_warps(rows, width)) {
            let (from, rows) = ([Arg::Address(product)], [Arg::Int(narrow(rows)?)]);
            let args = [&from[..], &by, &rest[..3], &rows, &rest[4..]].concat();
            let function = (
                &self.many.loaded()?.residual_norm[place],
                "residual_norm_many",
            );
            // SAFETY: as above.
            return unsafe { start(on, function, launch, &args) };
        }
        let from = [Arg::Address(product), Arg::Int(narrow(planes)?)];
        let args = [&from[..], &by, &rest].concat();
        let function = &self.residual_norm[usize::from(planes > 1)];
        // SAFETY: as above; `Tiles` makes no more planes than the kernel adds up.
        unsafe {
            start(
                on,
                (function, "residual_norm"),
                by_rows(rows, width)?,
                &args,
            )
        }
    }

    /// The norm of `rows` rows of `x`: all, or those that `ends` names; `plain` and `narrow` may be 0.
    pub(super) fn norm_rows(
        &self,
        on: On<'_>,
        [rows, width]: [usize; 2],
        [x, ends]: [Address; 2],
        norm: NormAddress,
        [plain, narrowed]: [Address; 2],
    ) -> Result<()> {
        let rest = [norm.weight, norm.bias, plain, narrowed].map(Arg::Address);
        if let (0, Some((launch, place))) = (ends, plan::row_warps(rows, width)) {
            let args = [&[Arg::Address(x)], &rest[..], &[Arg::Int(narrow(rows)?)]].concat();
            let function = (&self.many.loaded()?.norm[place], "norm_many");
            // SAFETY: as above.
            return unsafe { start(on, function, launch, &args) };
        }
        let from = [x, ends].map(Arg::Address);
        let args = [&from[..], &rest, &[Arg::Int(narrow(width)?)]].concat();
        let function = (&self.norm_rows, "norm_rows");
        // SAFETY: as above.
        unsafe { start(on, function, by_rows(rows, width)?, &args) }
    }

    /// `from` and its bias (0 is none) through the non-linearity; `from` may be `to`.
    pub(super) fn bias_activate(
        &self,
        on: On<'_>,
        [rows, width]: [usize; 2],
        places: [Address; 3],
        activation: Activation,
    ) -> Result<()> {
        let (launch, many) = plan::eights(rows, width).ok_or_else(|| odd_shape(rows, width))?;
        let numbers = [narrow(rows)?, narrow(width)?, number(activation)].map(Arg::Int);
        let ahead = [Arg::Address(on.ahead.0), Arg::Size(on.ahead.1)];
        let args = [&places.map(Arg::Address)[..], &numbers, &ahead].concat();
        let function = if many {
            &self.many.loaded()?.bias_activate
        } else {
            &self.bias_activate
        };
        // SAFETY: as above.
        unsafe { start(on, (function, "bias_activate"), launch, &args) }
    }

    /// Stacked query, key and value → mixed values; `bias` and `hidden_keys` may be 0.
    pub(super) fn attention(
        &self,
        on: On<'_>,
        [windows, heads]: [usize; 2],
        [stacked, bias, hidden_keys, mixed]: [Address; 4],
    ) -> Result<()> {
        let launch = plan::attention(windows, heads, self.tensor_cores);
        let launch = launch.ok_or_else(|| odd_shape(windows, heads))?;
        let places = [stacked, bias, hidden_keys, mixed, on.ahead.0].map(Arg::Address);
        let args = [&places[..], &[Arg::Size(on.ahead.1)]].concat();
        // SAFETY: as above.
        unsafe { start(on, (&self.attention, "attention"), launch, &args) }
    }
}

/// As `with_activation` in `activation.cu` counts them.
pub(super) fn number(activation: Activation) -> i32 {
    match activation {
        Activation::QuickGelu => 0,
        Activation::GeluErf => 1,
        Activation::GeluTanh => 2,
    }
}

fn by_rows(rows: usize, width: usize) -> Result<Launch> {
    plan::row_blocks(rows, width).ok_or_else(|| odd_shape(rows, width))
}

pub(super) fn narrow(width: usize) -> Result<i32> {
    i32::try_from(width).map_err(|_| odd_shape(1, width))
}

pub(super) fn odd_shape(rows: usize, width: usize) -> crate::error::Error {
    device_error(format!("no CUDA kernel takes {rows} × {width}"))
}
