//! Our kernels, ready to be started.
#![expect(unsafe_code, reason = "kernels are started with raw pointers")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdeviceptr};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction, CudaModule};

use super::compiled;
use super::failure::{Tried, device_error};
use super::product::Operands;
use super::start::{Arg, On, start};
use crate::error::Result;
use crate::kernels::Activation;
use crate::kernels::plan::{self, COLUMNS, Kind, Launch, ProductShape, Tiles};

/// Where something lies in the card's memory; 0 is "none".
pub(super) type Address = CUdeviceptr;

/// Compute capability, times ten, from which f16 and bf16 fragments of 16 × 8 × 16 exist.
const TENSOR_CORES: i32 = 80;

/// The same from which a kernel can await the one before, and the driver's version from which that can
/// be captured.
const OVERLAP: (i32, i32) = (90, 12_040);

/// The kernels for one type of matrices.
#[derive(Debug)]
pub(super) struct Functions {
    embed_norm: CudaFunction,
    residual_norm: CudaFunction,
    norm_rows: CudaFunction,
    bias_activate: CudaFunction,
    attention: CudaFunction,
    /// One for each of [`COLUMNS`]; none without tensor cores.
    products: Vec<CudaFunction>,
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
    pub(super) fn load(context: &Arc<CudaContext>, kind: Kind, driver: i32) -> Result<Functions> {
        let (module, target) = compiled::module(context, kind)?;
        let tensor_cores = target >= TENSOR_CORES && kind != Kind::F32;
        let named = |name: &str| named(&module, name, kind);
        let products = COLUMNS.iter().filter(|_| tensor_cores);
        let products = products.map(|columns| product(&module, *columns, kind));
        let attention = if tensor_cores {
            "attention_tensor"
        } else {
            "attention_plain"
        };
        Ok(Functions {
            embed_norm: named("embed_norm")?,
            residual_norm: named("residual_norm")?,
            norm_rows: named("norm_rows")?,
            bias_activate: named("bias_activate")?,
            attention: named(attention)?,
            products: products.collect::<Result<_>>()?,
            tensor_cores,
            overlap: target >= OVERLAP.0 && driver >= OVERLAP.1,
        })
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
        let from = [Arg::Address(product), Arg::Int(narrow(planes)?)];
        let by = [bias, norm.weight, norm.bias].map(Arg::Address);
        let rest = [Arg::Int(narrow(width)?), Arg::Address(on.ahead.0)];
        let to = to.map(Arg::Address);
        let args = [&from[..], &by, &to, &rest, &[Arg::Size(on.ahead.1)]].concat();
        let function = (&self.residual_norm, "residual_norm");
        // SAFETY: as above.
        unsafe { start(on, function, by_rows(rows, width)?, &args) }
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
        let all = [x, ends, norm.weight, norm.bias, plain, narrowed].map(Arg::Address);
        let args = [&all[..], &[Arg::Int(narrow(width)?)]].concat();
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
        let (launch, n_eights) = plan::eights(rows, width).ok_or_else(|| odd_shape(rows, width))?;
        let numbers = [narrow(width)?, number(activation)].map(Arg::Int);
        let rest = [Arg::Size(n_eights), Arg::Address(on.ahead.0)];
        let places = places.map(Arg::Address);
        let args = [&places[..], &numbers, &rest, &[Arg::Size(on.ahead.1)]].concat();
        // SAFETY: as above.
        unsafe { start(on, (&self.bias_activate, "bias_activate"), launch, &args) }
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

    /// Ways to make a product with our own kernels, for which there are so many bytes of planes.
    pub(super) fn tiles(&self, shape: &ProductShape, room: usize) -> Vec<Tiles> {
        if self.products.is_empty() {
            return Vec::new();
        }
        Tiles::all(shape, room)
    }

    /// True if this one is among them.
    pub(super) fn has(&self, tiles: Tiles, shape: &ProductShape, room: usize) -> bool {
        !self.products.is_empty() && tiles.fit(shape, room)
    }

    /// Our own product, which must [fit](Tiles::fit): to `at.out`, planes behind each other where it is f32.
    pub(super) fn product(
        &self,
        on: On<'_>,
        tiles: Tiles,
        shape: &ProductShape,
        at: Operands,
        finish: Finish,
    ) -> Result<()> {
        let place = COLUMNS.iter().position(|own| *own == tiles.columns);
        let function = place.and_then(|place| self.products.get(place));
        let launch = tiles.launch(shape);
        let (Some(function), Some(launch)) = (function, launch) else {
            return Err(odd_shape(shape.rows, shape.inputs));
        };
        let (narrowed, planes) = match shape.result {
            Kind::F32 => (0, at.out),
            Kind::F16 | Kind::Bf16 => (at.out, 0),
        };
        let places = [at.x, at.weight, finish.bias, narrowed, planes].map(Arg::Address);
        let sizes = [shape.rows, shape.inputs, shape.outputs].map(narrow);
        let [rows, depth, outputs] = sizes;
        let activation = finish.activation.map_or(-1, number);
        let numbers = [rows?, depth?, outputs?, activation].map(Arg::Int);
        let args = [&places[..], &numbers].concat();
        // SAFETY: as above; `fit` has checked the shape.
        unsafe { start(on, (function, "product"), launch, &args) }
    }
}

fn named(module: &Arc<CudaModule>, name: &str, kind: Kind) -> Result<CudaFunction> {
    let name = format!("{name}_{}", kind.suffix());
    let found = module.load_function(&name);
    found.tried(&format!("find the kernel {name}"))
}

/// A kernel that needs more shared memory than one gets unasked.
fn product(module: &Arc<CudaModule>, columns: usize, kind: Kind) -> Result<CudaFunction> {
    use sys::CUfunction_attribute_enum as Attribute;
    let function = named(module, &format!("product_{columns}"), kind)?;
    let shared = i32::try_from(Tiles::shared(columns)).map_err(|_| odd_shape(1, columns))?;
    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let set = function.set_attribute(attribute, shared);
    set.tried("give a kernel its shared memory")?;
    Ok(function)
}

/// As `with_activation` in `activation.cu` counts them.
fn number(activation: Activation) -> i32 {
    match activation {
        Activation::QuickGelu => 0,
        Activation::GeluErf => 1,
        Activation::GeluTanh => 2,
    }
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
