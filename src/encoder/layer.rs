//! One pre-norm block, and how its tensors are loaded.

use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{Block, Kernels, NormOf, Product, placed};
use crate::transfers::Transfers;
use crate::weights::TensorSource;

use super::ClipConfig;

/// Reads tensors of one encoder in their two storage forms.
pub(super) struct Loader<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) kept: Kept,
    pub(super) device: &'a Device,
    pub(super) transfers: Option<&'a dyn Transfers>,
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
#[non_exhaustive]
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
    /// Stacks of matrices, in their order; those that are not quantized are read together.
    fn load(load: &Loader<'_>, stacks: &[Vec<String>]) -> Result<Vec<Weight>> {
        let kept = stacks.iter().map(|names| load.quantized(names));
        let kept = kept.collect::<Result<Vec<_>>>()?;
        let dense = stacks.iter().zip(&kept);
        let dense = dense.filter_map(|(names, kept)| kept.is_none().then_some(names.clone()));
        let mut dense = load.stacks(&dense.collect::<Vec<_>>())?.into_iter();
        let weights = kept.into_iter().map(|kept| match kept {
            Some(kept) => Ok(kept),
            None => Weight::of(dense.next().ok_or_else(too_few)?),
        });
        weights.collect()
    }

    /// A matrix that is not quantized, where it is read fastest.
    pub(super) fn of(matrix: Tensor) -> Result<Weight> {
        Ok(Weight::Dense(placed(matrix)?))
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

fn too_few() -> Error {
    let message = "the source gave fewer tensors than it was asked for";
    Error::new(ErrorKind::MissingTensor, message)
}

fn stack(parts: Vec<Tensor>) -> Result<Tensor> {
    match <[Tensor; 1]>::try_from(parts) {
        Ok([only]) => Ok(only),
        Err(parts) => Ok(Tensor::cat(&parts, 0)?),
    }
}

impl Loader<'_> {
    pub(super) fn matrix(&self, name: &str) -> Result<Tensor> {
        stack(self.stacks(&[vec![name.to_owned()]])?)
    }

    fn stacks(&self, names: &[Vec<String>]) -> Result<Vec<Tensor>> {
        let (source, dtype) = (self.source, self.kept.dtype);
        match self.transfers {
            Some(transfers) => source.load_stacks_by(transfers, names, dtype, self.device),
            None => source.load_stacks(names, dtype, self.device),
        }
    }

    /// Matrices that stay quantized, if that is wanted and the file has all of them so.
    fn quantized(&self, names: &[String]) -> Result<Option<Weight>> {
        if self.kept.quantized == Quantized::Expand {
            return Ok(None);
        }
        let kept = names.iter();
        let kept = kept.map(|name| self.source.load_quantized(name, self.device));
        let kept: Option<Arc<[QTensor]>> = kept.collect::<Result<_>>()?;
        Ok(kept.map(Weight::Quantized))
    }

    pub(super) fn vector(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, DType::F32, self.device)
    }

    /// One after the other, as one.
    fn vectors(&self, names: Vec<String>) -> Result<Tensor> {
        stack(self.source.load_stacks(&[names], DType::F32, self.device)?)
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

/// A layer's matrices in their order. Query, key and value are stacked on the rows, so that one product
/// makes all three.
const STACKS: [&[&str]; 4] = [&["q", "k", "v"], &["out"], &["fc1"], &["fc2"]];

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
    /// Some layers, whose matrices may share memory.
    pub(super) fn load(load: &Loader<'_>, layers: Range<usize>) -> Result<Vec<Layer>> {
        let names = layers.clone().flat_map(|layer| {
            let weight = move |part: &&str| format!("layers.{layer}.{part}.weight");
            STACKS.map(|parts| parts.iter().map(weight).collect())
        });
        let weights = Weight::load(load, &names.collect::<Vec<_>>())?;
        let weights = weights.chunks_exact(STACKS.len());
        let layers = layers.zip(weights);
        layers
            .map(|(layer, weights)| Layer::of(load, layer, weights))
            .collect()
    }

    /// The layer with these matrices.
    fn of(load: &Loader<'_>, layer: usize, weights: &[Weight]) -> Result<Layer> {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let linear = |place: usize| {
            let biases = STACKS[place].iter();
            let biases = biases.map(|part| name(&format!("{part}.bias")));
            let bias = load.vectors(biases.collect())?;
            let weight = weights[place].clone();
            Ok::<Linear, Error>(Linear { weight, bias })
        };
        Ok(Layer {
            norm1: Norm::load(load, &name("ln1"))?,
            query_key_value: linear(0)?,
            out: linear(1)?,
            norm2: Norm::load(load, &name("ln2"))?,
            up: linear(2)?,
            down: linear(3)?,
        })
    }

    /// The same with no matrix quantized; the others are shared.
    pub(super) fn expanded(&self) -> Result<Layer> {
        let expanded = |linear: &Linear| {
            let weight = Weight::of(linear.weight.dense()?)?;
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
