//! One pre-norm block, and how its tensors are loaded.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::{Block, Kernels, NormOf, Product};

use super::ClipConfig;
use super::weight::{Loader, Weight};

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
    fn product(&self, kernels: &dyn Kernels) -> Option<Product<'_>> {
        Some(Product {
            weight: self.weight.fast(kernels)?,
            bias: &self.bias,
        })
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

    pub(super) fn matrices(&self) -> [&Weight; 4] {
        let products = [&self.query_key_value, &self.out, &self.up, &self.down];
        products.map(|product| &product.weight)
    }

    /// The same as these kernels' fast paths take it; what they take already is shared.
    pub(super) fn expanded(&self, kernels: &dyn Kernels) -> Result<Layer> {
        let expanded = |linear: &Linear| {
            let weight = match linear.weight.fast(kernels) {
                Some(_) => linear.weight.clone(),
                None => Weight::of(linear.weight.dense()?)?,
            };
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

    /// Its tensors as these kernels' fast paths take them; `None` if one is kept in another way.
    pub(super) fn block(&self, kernels: &dyn Kernels) -> Option<Block<'_>> {
        Some(Block {
            norm1: self.norm1.tensors(),
            query_key_value: self.query_key_value.product(kernels)?,
            out: self.out.product(kernels)?,
            norm2: self.norm2.tensors(),
            up: self.up.product(kernels)?,
            down: self.down.product(kernels)?,
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
