//! Plain candle operations: the definition of correct.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops;

use super::{Activation, Kernels};
use crate::error::Result;

/// Epsilon of every layer norm in ViT-L, ViT-H and ViT-bigG (`layer_norm_eps` of their configs).
pub(super) const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Slope of the quick GELU (OpenAI CLIP, `clip/model.py`).
pub(super) const QUICK_GELU_SLOPE: f32 = 1.702;

/// Rows of a window; the mask is made for these once.
const WINDOW: usize = 77;

/// Plain candle operations on one device.
#[derive(Debug)]
pub struct Reference {
    /// `[77, 77]`: 0 on and below the diagonal, minus infinity above.
    mask: Tensor,
}

impl Reference {
    /// Kernels for tensors on `device`.
    pub fn new(device: &Device) -> Result<Reference> {
        let rows = (0..WINDOW).flat_map(|row| {
            (0..WINDOW).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 })
        });
        let mask = Tensor::from_iter(rows, device)?.reshape((WINDOW, WINDOW))?;
        Ok(Reference { mask })
    }
}

impl Kernels for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let product = matmul_transposed(x, weight)?;
        match bias {
            Some(bias) => Ok(product.broadcast_add(bias)?),
            None => Ok(product),
        }
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, weight, bias, LAYER_NORM_EPSILON)?)
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(match activation {
            Activation::QuickGelu => (x * ops::sigmoid(&(x * f64::from(QUICK_GELU_SLOPE))?)?)?,
            Activation::GeluErf => x.gelu_erf()?,
            Activation::GeluTanh => x.gelu()?,
        })
    }

    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (windows, rows, width3) = qkv.dims3()?;
        let width = width3 / 3;
        let head = width / heads;
        // [windows, 77, 3, heads, head] -> three of [windows, heads, 77, head]
        let split = qkv.reshape((windows, rows, 3, heads, head))?;
        let part = |index| -> Result<Tensor> {
            Ok(split
                .narrow(2, index, 1)?
                .squeeze(2)?
                .transpose(1, 2)?
                .contiguous()?)
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let scores = (query * (head as f64).powf(-0.5))?.matmul(&key.transpose(2, 3)?)?;
        let mut scores = scores.broadcast_add(&self.mask)?;
        if let Some(keys) = hidden_keys {
            scores = scores.broadcast_add(&keys.reshape((windows, 1, 1, rows))?)?;
        }
        let scores = ops::softmax_last_dim(&scores)?;
        let mixed = scores.matmul(&value)?; // [windows, heads, 77, head]
        Ok(mixed.transpose(1, 2)?.reshape((windows, rows, width))?)
    }
}

/// `x · weightᵀ` with f32 in and out.
///
/// 16-bit weights: a CPU widens them for the product, a GPU narrows `x` and accumulates in f32.
fn matmul_transposed(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dim(0)? == 1 {
        // A lone row takes the matrix-vector path, which rounds differently from a batch.
        return Ok(matmul_transposed(&x.repeat((2, 1))?, weight)?.narrow(0, 0, 1)?);
    }
    if weight.dtype() == DType::F32 {
        return Ok(x.matmul(&weight.t()?)?);
    }
    if x.device().is_cpu() {
        return matmul_transposed(x, &weight.to_dtype(DType::F32)?);
    }
    let product = x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?;
    debug_assert_eq!(product.dim(D::Minus1)?, weight.dim(0)?);
    Ok(product.to_dtype(DType::F32)?)
}
