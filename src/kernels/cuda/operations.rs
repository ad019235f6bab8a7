//! The same kernels one by one, on candle's tensors and candle's stream: for encoders that cannot be run
//! whole, and to check each kernel against its plain twin.

use std::sync::{Arc, PoisonError};

use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Device, Tensor};

use super::CudaKernels;
use super::functions::{Address, Finish, NormAddress};
use super::library::{Operands, WORKSPACE};
use super::start::On;
use super::tensors::{address, unwritten};
use super::transfers::CudaTransfers;
use crate::error::Result;
use crate::kernels::plan::{ALIGNMENT, Kind, ProductShape, Tiles, WINDOW};
use crate::kernels::{Activation, Batch, Kernels, Prepared, ReadOut, WholeEncoder};
use crate::transfers::Transfers;

/// Head width of the attention kernels.
const HEAD: usize = 64;

impl CudaKernels {
    fn stream(&self) -> Arc<CudaStream> {
        self.device.cuda_stream()
    }

    /// A tensor's place if it is of this type and lies as the kernels need it.
    fn placed(&self, tensor: &Tensor, kind: Kind, alignment: usize) -> Option<Address> {
        let (address, found) = address(tensor, &self.stream())?;
        (found == kind && address.is_multiple_of(alignment as Address)).then_some(address)
    }

    fn fast_linear(&self, x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
        let (Ok((rows, inputs)), Ok((outputs, columns))) = (x.dims2(), weight.dims2()) else {
            return Ok(None);
        };
        let Some(kind) = Kind::of(weight.dtype()).filter(|_| columns == inputs && rows > 0) else {
            return Ok(None);
        };
        let x = x.to_dtype(weight.dtype())?.contiguous()?;
        let out = self.unwritten_f32(&[rows, outputs])?;
        let workspace = self.unwritten_f32(&[WORKSPACE / 4])?;
        let placed = |tensor, kind| self.placed(tensor, kind, ALIGNMENT);
        let (from, by) = (placed(&x, kind), placed(weight, kind));
        let (to, room) = (placed(&out, Kind::F32), placed(&workspace, Kind::F32));
        let (Some(x), Some(weight), Some(to), Some(workspace)) = (from, by, to, room) else {
            return Ok(None);
        };
        let shape = ProductShape {
            rows,
            inputs,
            outputs,
            kind,
            result: Kind::F32,
        };
        let at = Operands {
            weight,
            x,
            out: to,
            workspace,
        };
        self.make_product(&shape, at)?;
        Ok(Some(out))
    }

    fn unwritten_f32(&self, shape: &[usize]) -> Result<Tensor> {
        unwritten(shape, DType::F32, &Device::Cuda(self.device.clone()))
    }

    /// In one piece: nothing here adds up planes.
    fn make_product(&self, shape: &ProductShape, at: Operands) -> Result<()> {
        let (shared, stream) = (self.shared(shape.kind)?, self.stream());
        let (mut product, _) = shared.product(shape)?;
        let known = product.tiles().map(|tiles| Tiles { parts: 1, ..tiles });
        match shared.only_own(shape)?.or(known) {
            None => {
                // What is not on the residual stream replaces what was there.
                product.make_by(product.likely());
                product.run(&shared.library, &stream, at, 0)
            }
            Some(tiles) => {
                let (on, finish) = (On::plainly(&stream), Finish::default());
                let own = shared.functions.own_products()?;
                own.start(on, tiles, shape, at, finish)
            }
        }
    }

    fn fast_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Option<Tensor>> {
        let Some(width) = x.dims().last().copied().filter(|width| *width > 0) else {
            return Ok(None);
        };
        let rows = x.elem_count() / width;
        let whole = weight.elem_count() == width && bias.elem_count() == width;
        let out = unwritten(x.dims(), DType::F32, &Device::Cuda(self.device.clone()))?;
        let placed = |tensor| self.placed(tensor, Kind::F32, 16);
        let found = (placed(x), placed(weight), placed(bias), placed(&out));
        let (Some(x), Some(weight), Some(bias), Some(to)) = found else {
            return Ok(None);
        };
        if !whole || crate::kernels::plan::row_blocks(rows, width).is_none() {
            return Ok(None);
        }
        let shared = self.shared(Kind::F32)?;
        let norm = NormAddress { weight, bias };
        shared.functions.norm_rows(
            On::plainly(&self.stream()),
            [rows, width],
            [x, 0],
            norm,
            [to, 0],
        )?;
        Ok(Some(out))
    }

    fn fast_activation(&self, x: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
        let (Some(kind), Some(width)) = (Kind::of(x.dtype()), x.dims().last().copied()) else {
            return Ok(None);
        };
        let rows = x.elem_count().checked_div(width).unwrap_or(0);
        if crate::kernels::plan::eights(rows, width).is_none() {
            return Ok(None);
        }
        let out = unwritten(x.dims(), x.dtype(), &Device::Cuda(self.device.clone()))?;
        let (Some(from), Some(to)) = (self.placed(x, kind, 16), self.placed(&out, kind, 16)) else {
            return Ok(None);
        };
        let shared = self.shared(kind)?;
        let places = [from, 0, to];
        shared.functions.bias_activate(
            On::plainly(&self.stream()),
            [rows, width],
            places,
            activation,
        )?;
        Ok(Some(out))
    }

    fn fast_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let (windows, rows, stacked) = qkv.dims3()?;
        let Some(kind) = Kind::of(qkv.dtype()) else {
            return Ok(None);
        };
        let shapes = rows == WINDOW && heads > 0 && stacked == 3 * HEAD * heads;
        let hidden = match hidden_keys {
            None => Some(0),
            Some(keys) if keys.elem_count() == windows * WINDOW => self.placed(keys, Kind::F32, 4),
            Some(_) => None,
        };
        let (Some(hidden), Some(from), true) = (hidden, self.placed(qkv, kind, 16), shapes) else {
            return Ok(None);
        };
        let shape = [windows, rows, stacked / 3];
        let out = unwritten(&shape, qkv.dtype(), &Device::Cuda(self.device.clone()))?;
        let Some(to) = self.placed(&out, kind, 16) else {
            return Ok(None);
        };
        let shared = self.shared(kind)?;
        let places = [from, 0, hidden, to];
        shared
            .functions
            .attention(On::plainly(&self.stream()), [windows, heads], places)?;
        Ok(Some(out))
    }
}

impl Kernels for CudaKernels {
    fn name(&self) -> &'static str {
        if self.options.capture {
            "cuda-captured"
        } else {
            "cuda-fused"
        }
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let Some(product) = self.fast_linear(x, weight)? else {
            return self.plain.linear(x, weight, bias);
        };
        match bias {
            Some(bias) => Ok(product.broadcast_add(bias)?),
            None => Ok(product),
        }
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        match self.fast_norm(x, weight, bias)? {
            Some(normed) => Ok(normed),
            None => self.plain.layer_norm(x, weight, bias),
        }
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self.fast_activation(x, activation)? {
            Some(activated) => Ok(activated),
            None => self.plain.activate(x, activation),
        }
    }

    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        match self.fast_attention(qkv, heads, hidden_keys)? {
            Some(mixed) => Ok(mixed),
            None => self.plain.causal_attention(qkv, heads, hidden_keys),
        }
    }

    fn encode<'a>(
        &self,
        encoder: &dyn Fn() -> Option<WholeEncoder<'a>>,
        batch: &Batch<'_>,
        prepared: &Prepared,
    ) -> Result<Option<ReadOut>> {
        self.encode_whole(encoder, batch, prepared)
    }

    fn expect(&self, dtype: DType) {
        // What fails now fails again, and is told, when it is needed.
        let _ = Kind::of(dtype).map(|kind| self.shared(kind));
    }

    fn transfers(&self) -> Option<Arc<dyn Transfers>> {
        let mut kept = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let shared = kept.upgrade().unwrap_or_else(|| {
            let made = Arc::new(CudaTransfers::new(&self.device));
            *kept = Arc::downgrade(&made);
            made
        });
        Some(shared)
    }

    fn captured(&self, prepared: &Prepared) -> usize {
        of_engine(prepared, super::Engine::captured).unwrap_or(0)
    }

    fn capture_failure(&self, prepared: &Prepared) -> Option<String> {
        of_engine(prepared, super::Engine::capture_failure).flatten()
    }

    fn measured(&self, prepared: &Prepared) -> Vec<String> {
        of_engine(prepared, super::Engine::measured).unwrap_or_default()
    }
}

/// What an encoder's engine tells, if it has one.
fn of_engine<T>(prepared: &Prepared, tell: impl FnOnce(&super::Engine) -> T) -> Option<T> {
    let slot = prepared.get()?;
    let engine = slot.downcast_ref::<super::Slot>()?;
    engine.as_ref().map(tell)
}
