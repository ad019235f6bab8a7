//! One pre-norm block, and how its tensors are loaded.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::Kernels;
use crate::weights::TensorSource;

use super::ClipConfig;

/// Reads tensors of one encoder in their two storage forms.
pub(super) struct Loader<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

impl Loader<'_> {
    pub(super) fn matrix(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, self.dtype, self.device)
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

    pub(super) fn forward(&self, x: &Tensor, kernels: &dyn Kernels) -> Result<Tensor> {
        kernels.layer_norm(x, &self.weight, &self.bias)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl Linear {
    fn load(load: &Loader<'_>, name: &str) -> Result<Linear> {
        let weight = load.matrix(&format!("{name}.weight"))?;
        let bias = load.vector(&format!("{name}.bias"))?;
        Ok(Linear { weight, bias })
    }

    /// Query, key and value stacked on the rows, so that one product makes all three.
    fn load_stacked(load: &Loader<'_>, names: [String; 3]) -> Result<Linear> {
        let parts = names.map(|name| Linear::load(load, &name));
        let [query, key, value] = parts;
        let (query, key, value) = (query?, key?, value?);
        let weight = Tensor::cat(&[&query.weight, &key.weight, &value.weight], 0)?;
        let bias = Tensor::cat(&[&query.bias, &key.bias, &value.bias], 0)?;
        Ok(Linear { weight, bias })
    }

    fn forward(&self, x: &Tensor, kernels: &dyn Kernels) -> Result<Tensor> {
        kernels.linear(x, &self.weight, Some(&self.bias))
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
            query_key_value: Linear::load_stacked(load, [name("q"), name("k"), name("v")])?,
            out: Linear::load(load, &name("out"))?,
            norm2: Norm::load(load, &name("ln2"))?,
            up: Linear::load(load, &name("fc1"))?,
            down: Linear::load(load, &name("fc2"))?,
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
