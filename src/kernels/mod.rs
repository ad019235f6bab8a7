//! HOT OPERATIONS, each done plainly and, where it pays, fast. Every fast path equals
//! [`reference`](Reference) within a stated bar.
//!
//! Activations are f32 between operations on every device; matrices may be stored in f32, f16 or bf16,
//! and a product may round what it takes to their type.

mod carrying;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod placing;
#[cfg(any(test, feature = "cuda"))]
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, unused_imports, reason = "without cards only tests use it")
)]
mod plan;
mod reference;
mod tower;
mod whole;

pub(crate) use carrying::carried;
pub use cpu::Cpu;
pub(crate) use placing::placed;
pub use reference::Reference;
pub use tower::{Block, MatrixOf, NormOf, Product, Tower};
pub use whole::{
    Batch, DeviceMemory, Follow, Options, PooledRow, Prepared, Products, ReadOut, Tune,
    WholeEncoder,
};

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::transfers::Transfers;

/// Which non-linearity an MLP has. Named by formula, because "gelu" means two different ones.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's CLIP.
    QuickGelu,
    /// `x/2 · (1 + erf(x/√2))`: what "gelu" means in `OpenCLIP` and transformers.
    GeluErf,
    /// The tanh approximation of it ("`gelu_new`"): up to 4.7e-4 away.
    GeluTanh,
}

/// The operations of a CLIP layer. Tensors are contiguous; activations are f32.
pub trait Kernels: fmt::Debug + Send + Sync {
    /// What to call it in a report: `reference`, `cuda-f16-fused`…
    fn name(&self) -> &'static str;

    /// `x · weightᵀ + bias`: `[rows, in] × [out, in] → [rows, out]`.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor>;

    /// Layer norm over the last dimension: `[.., width] → [.., width]`.
    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor>;

    /// The non-linearity, element by element.
    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor>;

    /// Causal self-attention over heads of 64: `[windows, 77, 3·width] → [windows, 77, width]`.
    /// The last dimension holds query, key and value, in this order. `hidden_keys` (`[windows, 77]`)
    /// is added to every row's scores: minus infinity hides a key.
    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor>;

    /// All blocks of a tower in one call: `x` is `[windows, 77, width]`, `hidden_keys` as in
    /// [`causal_attention`](Self::causal_attention). Gives the state after each of the layers in
    /// `keep` (ascending; 1 is the first layer's), each `[windows, 77, width]`; or `None` where these
    /// kernels have no fast path for such a tower, which is then run operation by operation.
    fn run(
        &self,
        _tower: &Tower<'_>,
        _x: &Tensor,
        _hidden_keys: Option<&Tensor>,
        _keep: &[usize],
    ) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }

    /// An encoder from ids to readout in one call; `None` as in [`run`](Self::run). What is made
    /// for the encoder on the way is kept in `prepared`, so `encoder` is called the first time only;
    /// it gives `None` if a matrix is kept quantized, or in a file.
    fn encode<'a>(
        &self,
        _encoder: &dyn Fn() -> Option<WholeEncoder<'a>>,
        _batch: &Batch<'_>,
        _prepared: &Prepared,
    ) -> Result<Option<ReadOut>> {
        Ok(None)
    }

    /// Whether [`run`](Self::run) takes matrices where a file has them in this machine's memory, and gives the
    /// same bits with those of the type `stored` as with the same ones in the type `kept`.
    fn takes_mapped(&self, _stored: DType, _kept: DType) -> bool {
        false
    }

    /// Matrices of this type are about to come: what takes long before they can be used, like compiling
    /// for a card, may be done now, while they are read. What fails here is told by the first call.
    fn expect(&self, _dtype: DType) {}

    /// The device's own way for large tensors, if it has one. All who hold it share one, which has memory
    /// of its own until the last lets it go.
    fn transfers(&self) -> Option<Arc<dyn Transfers>> {
        None
    }

    /// How many forwards of an encoder are captured, to be replayed in one call.
    fn captured(&self, _prepared: &Prepared) -> usize {
        0
    }

    /// Why a forward could not be captured, if that was tried in vain. It was run all the same.
    fn capture_failure(&self, _prepared: &Prepared) -> Option<String> {
        None
    }

    /// What was measured to make an encoder's forwards fast, a line each, to be read by people.
    fn measured(&self, _prepared: &Prepared) -> Vec<String> {
        Vec::new()
    }
}

/// The best kernels for a device: a card's own, [`Cpu`] where the CPU has a vector unit that it knows,
/// else [`Reference`].
pub fn choose(device: &Device) -> Result<Arc<dyn Kernels>> {
    choose_with(device, &Options::default())
}

/// The same with a choice of how they work.
pub fn choose_with(device: &Device, options: &Options) -> Result<Arc<dyn Kernels>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device {
        return Ok(Arc::new(cuda::CudaKernels::new(card, options)?));
    }
    if let (true, Some(unit)) = (device.is_cpu(), &options.unit) {
        return Ok(Arc::new(Cpu::named(unit)?));
    }
    if device.is_cpu()
        && let Some(fast) = Cpu::new()?
    {
        return Ok(Arc::new(fast));
    }
    Ok(Arc::new(Reference::new(device)?))
}

/// Runs `load` while the kernels do what they can do [beforehand](Kernels::expect), on the caller's rayon
/// pool.
pub(crate) fn while_expecting<T>(
    kernels: &dyn Kernels,
    dtype: DType,
    load: impl FnOnce() -> T,
) -> T {
    // All encoders share one.
    let _transfers = kernels.transfers();
    rayon::in_place_scope(|scope| {
        scope.spawn(|_| kernels.expect(dtype));
        load()
    })
}

/// Memory of a device, where it tells: CUDA cards do.
pub fn device_memory(device: &Device) -> Result<Option<DeviceMemory>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device {
        return cuda::memory(card).map(Some);
    }
    let _ = device;
    Ok(None)
}

/// Gives memory that was freed back to the device, for other programs: CUDA keeps it for the next
/// forward otherwise.
pub fn release_unused(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device {
        return cuda::release_unused(card);
    }
    let _ = device;
    Ok(())
}
