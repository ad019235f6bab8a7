//! One pre-norm block, and how its tensors are loaded.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::{Block, Kernels, NormOf, Product};
use crate::weights::TensorSource;

use super::ClipConfig;

/// Reads tensors of one encoder in their two storage forms.
pub(super) struct Loader<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) kept: Kept,
    pub(super) device: &'a Device,
}

/// How an encoder's matrices are kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The type of those that are not quantized.
    pub dtype: DType,
    /// What becomes of those that are.
    pub quantized: Quantized,
}

impl From<DType> for Kept {
    /// All expanded to one type.
    fn from(dtype: DType) -> Kept {
        let quantized = Quantized::Expand;
        Kept { dtype, quantized }
    }
}

/// What becomes of matrices that a file has quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantized {
    /// They are expanded once, when they are loaded.
    Expand,
    /// They stay as they are and are expanded anew for each product: less memory, more time, the
    /// same numbers where the encoder is kept in f32.
    Keep,
}

/// A matrix, or some that are stacked on the rows.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    Dense(Tensor),
    /// At least one.
    Quantized(Arc<[QTensor]>),
}

impl Weight {
    fn load(load: &Loader<'_>, names: &[String]) -> Result<Weight> {
        let kept = names.iter().map(|name| load.quantized(name));
        let kept: Vec<Option<QTensor>> = kept.collect::<Result<_>>()?;
        let kept: Option<Vec<QTensor>> = kept.into_iter().collect();
        if let Some(kept) = kept {
            return Ok(Weight::Quantized(kept.into()));
        }
        let stacked = load
            .source
            .load_stacked(names, load.kept.dtype, load.device);
        stacked.map(Weight::Dense)
    }

    /// The matrix as a product needs it.
    pub(super) fn dense(&self) -> Result<Tensor> {
        match self {
            Weight::Dense(tensor) => Ok(tensor.clone()),
            Weight::Quantized(parts) => {
                let parts = parts.iter().map(|part| part.dequantize(&part.device()));
                stack(parts.collect::<candle_core::Result<_>>()?)
            }
        }
    }
}

fn stack(parts: Vec<Tensor>) -> Result<Tensor> {
    match <[Tensor; 1]>::try_from(parts) {
        Ok([only]) => Ok(only),
        Err(parts) => Ok(Tensor::cat(&parts, 0)?),
    }
}

impl Loader<'_> {
    pub(super) fn matrix(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, self.kept.dtype, self.device)
    }

    /// A matrix that stays quantized, if that is wanted and the file has it so.
    fn quantized(&self, name: &str) -> Result<Option<QTensor>> {
        match self.kept.quantized {
            Quantized::Expand => Ok(None),
            Quantized::Keep => self.source.load_quantized(name, self.device),
        }
    }

    pub(super) fn vector(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, DType::F32, self.device)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl Norm {
    pub(super) fn load(load: &Loader<'_>, name: &str) -> Result<Norm> {
        let weight = load.vector(&format!("{name}.weight"))?;
        let bias = load.vector(&format!("{name}.bias"))?;
        Ok(Norm { weight, bias })
    }

    pub(super) fn tensors(&self) -> NormOf<'_> {
        NormOf {
            weight: &self.weight,
            bias: &self.bias,
        }
    }

    pub(super) fn forward(&self, x: &Tensor, kernels: &dyn Kernels) -> Result<Tensor> {
        kernels.layer_norm(x, &self.weight, &self.bias)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Tensor,
}

impl Linear {
    fn load(load: &Loader<'_>, name: &str) -> Result<Linear> {
        let weight = Weight::load(load, &[format!("{name}.weight")])?;
        let bias = load.vector(&format!("{name}.bias"))?;
        Ok(Linear { weight, bias })
    }

    /// Query, key and value stacked on the rows, so that one product makes all three.
    fn load_stacked(load: &Loader<'_>, names: &[String; 3]) -> Result<Linear> {
        let weights = names.each_ref().map(|name| format!("{name}.weight"));
        let weight = Weight::load(load, &weights)?;
        let biases = names
            .iter()
            .map(|name| load.vector(&format!("{name}.bias")));
        let bias = stack(biases.collect::<Result<_>>()?)?;
        Ok(Linear { weight, bias })
    }

    fn product(&self) -> Option<Product<'_>> {
        match &self.weight {
            Weight::Quantized(_) => None,
            Weight::Dense(weight) => Some(Product {
                weight,
                bias: &self.bias,
            }),
        }
    }

    fn forward(&self, x: &Tensor, kernels: &dyn Kernels) -> Result<Tensor> {
        kernels.linear(x, &self.weight.dense()?, Some(&self.bias))
    }
}

/// One pre-norm block: `x += attention(LN1(x)); x += mlp(LN2(x))`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) norm1: Norm,
    pub(super) query_key_value: Linear,
    pub(super) out: Linear,
    pub(super) norm2: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Layer {
    pub(super) fn load(load: &Loader<'_>, layer: usize) -> Result<Layer> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        Ok(Layer {
            norm1: Norm::load(load, &name("ln1"))?,
            query_key_value: Linear::load_stacked(load, &[name("q"), name("k"), name("v")])?,
            out: Linear::load(load, &name("out"))?,
            norm2: Norm::load(load, &name("ln2"))?,
            up: Linear::load(load, &name("fc1"))?,
            down: Linear::load(load, &name("fc2"))?,
        })
    }

    /// The same with no matrix quantized; the others are shared.
    pub(super) fn expanded(&self) -> Result<Layer> {
        let expanded = |linear: &Linear| {
            let weight = Weight::Dense(linear.weight.dense()?);
            let bias = linear.bias.clone();
            Ok::<Linear, Error>(Linear { weight, bias })
        };
        Ok(Layer {
            norm1: self.norm1.clone(),
            query_key_value: expanded(&self.query_key_value)?,
            out: expanded(&self.out)?,
            norm2: self.norm2.clone(),
            up: expanded(&self.up)?,
            down: expanded(&self.down)?,
        })
    }

    /// Its tensors as the fast paths take them; `None` if a matrix is kept quantized.
    pub(super) fn block(&self) -> Option<Block<'_>> {
        Some(Block {
            norm1: self.norm1.tensors(),
            query_key_value: self.query_key_value.product()?,
            out: self.out.product()?,
            norm2: self.norm2.tensors(),
            up: self.up.product()?,
            down: self.down.product()?,
        })
    }

    /// `[windows, 77, width]` in and out.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        hidden_keys: Option<&Tensor>,
        config: &ClipConfig,
        kernels: &dyn Kernels,
    ) -> Result<Tensor> {
        let (windows, rows, width) = x.dims3()?;
        let x = x.reshape((windows * rows, width))?;
        let qkv = self
            .query_key_value
            .forward(&self.norm1.forward(&x, kernels)?, kernels)?;
        let qkv = qkv.reshape((windows, rows, 3 * width))?;
        let mixed = kernels.causal_attention(&qkv, config.heads, hidden_keys)?;
        let mixed = mixed.reshape((windows * rows, width))?;
        let x = (x + self.out.forward(&mixed, kernels)?)?;
        let inner = self
            .up
            .forward(&self.norm2.forward(&x, kernels)?, kernels)?;
        let inner = kernels.activate(&inner, config.activation)?;
        let x = (x + self.down.forward(&inner, kernels)?)?;
        Ok(x.reshape((windows, rows, width))?)
    }
}
