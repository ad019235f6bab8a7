//! The transformer: embedding, layers, readout.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Kernels;
use crate::tokens::{CONTEXT, Chunk};
use crate::weights::TensorSource;

use super::{ClipConfig, Pooled, Readout};

/// One loaded text encoder.
#[derive(Debug)]
pub struct ClipText {
    config: ClipConfig,
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_norm: Norm,
    projection: Option<Tensor>,
    kernels: Arc<dyn Kernels>,
}

/// What one forward gives, in f32.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// `[windows, 77, width]`
    pub hidden: Tensor,
    /// `[windows, width]`: full tower, final norm, at the end token; where some readout asked.
    pub normed: Option<Tensor>,
    /// `[windows, projected]`: the same times the projection; where some readout asked.
    pub projected: Option<Tensor>,
}

impl Encoded {
    /// The pooled vectors of the kind asked for, `[windows, _]`.
    pub fn pooled(&self, kind: Pooled) -> Option<&Tensor> {
        match kind {
            Pooled::Skip => None,
            Pooled::Normed => self.normed.as_ref(),
            Pooled::Projected => self.projected.as_ref(),
        }
    }
}

impl ClipText {
    /// Loads all layers of `source`. Matrices are kept in `dtype`; vectors (biases, norms,
    /// positions) in f32, which costs nothing and loses nothing. `progress` hears of each layer.
    pub fn load(
        source: &dyn TensorSource,
        config: &ClipConfig,
        dtype: DType,
        kernels: Arc<dyn Kernels>,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ClipText> {
        let load = Loader {
            source,
            dtype,
            device,
        };
        let layers = (0..config.layers).map(|layer| {
            progress(layer, config.layers);
            Layer::load(&load, layer)
        });
        Ok(ClipText {
            config: config.clone(),
            token_embedding: load.matrix("token_embedding")?,
            position_embedding: load.vector("position_embedding")?,
            layers: layers.collect::<Result<_>>()?,
            final_norm: Norm::load(&load, "final_ln")?,
            projection: config
                .projection
                .map(|_| load.matrix("projection"))
                .transpose()?,
            kernels,
        })
    }

    /// Its dimensions.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The name of the kernels it runs on.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    /// Encodes all windows in one forward; `readouts` says what to read from each.
    /// Layers that no readout needs are not run.
    pub fn encode(&self, windows: &[&Chunk], readouts: &[Readout]) -> Result<Encoded> {
        let wanted = self.wanted_states(windows, readouts)?;
        let mut x = self.embed(windows)?;
        let mut states = vec![(0, x.clone())];
        for (index, layer) in self.layers.iter().enumerate().take(wanted.deepest) {
            x = layer.forward(&x, &self.config, &*self.kernels)?;
            if wanted.keeps(index + 1, readouts) {
                states.push((index + 1, x.clone()));
            }
        }
        let hidden = self.read_hidden(&states, readouts)?;
        let (normed, projected) = self.read_pooled(&x, windows, readouts)?;
        Ok(Encoded {
            hidden,
            normed,
            projected,
        })
    }

    /// How far to run, after checking that everything asked for exists.
    fn wanted_states(&self, windows: &[&Chunk], readouts: &[Readout]) -> Result<Wanted> {
        if windows.is_empty() || windows.len() != readouts.len() {
            let message = format!("{} windows, {} readouts", windows.len(), readouts.len());
            return Err(Error::new(ErrorKind::Request, message));
        }
        let depth = |readout: &Readout| match readout.pooled {
            Pooled::Skip => readout.layer,
            Pooled::Normed | Pooled::Projected => self.config.layers,
        };
        let deepest = readouts.iter().map(depth).max().unwrap_or_default();
        if let Some(readout) = readouts
            .iter()
            .find(|readout| readout.layer > self.config.layers)
        {
            let message = format!(
                "layer {} of an encoder with {}",
                readout.layer, self.config.layers
            );
            return Err(Error::new(ErrorKind::Request, message));
        }
        Ok(Wanted { deepest })
    }

    /// Token rows plus position rows: `[windows, 77, width]` in f32.
    fn embed(&self, windows: &[&Chunk]) -> Result<Tensor> {
        let ids: Vec<u32> = windows
            .iter()
            .flat_map(|window| window.ids().iter().copied())
            .collect();
        let ids = Tensor::from_vec(
            ids,
            (windows.len() * CONTEXT,),
            self.token_embedding.device(),
        )?;
        let rows = self
            .token_embedding
            .index_select(&ids, 0)?
            .to_dtype(DType::F32)?;
        let rows = rows.reshape((windows.len(), CONTEXT, self.config.width))?;
        Ok(rows.broadcast_add(&self.position_embedding)?)
    }

    /// Each window's state, in the order of the windows: `[windows, 77, width]`.
    fn read_hidden(&self, states: &[(usize, Tensor)], readouts: &[Readout]) -> Result<Tensor> {
        let mut kinds: Vec<(usize, bool)> = Vec::new();
        for readout in readouts {
            let kind = (readout.layer, readout.final_norm);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let read = |(layer, final_norm): (usize, bool)| -> Result<Tensor> {
            let (_, state) = states
                .iter()
                .find(|(index, _)| *index == layer)
                .expect("the forward keeps every state that a readout names");
            if final_norm {
                self.final_norm.forward(state, &*self.kernels)
            } else {
                Ok(state.clone())
            }
        };
        let all = kinds
            .iter()
            .map(|kind| read(*kind))
            .collect::<Result<Vec<_>>>()?;
        if let [only] = all.as_slice() {
            return Ok(only.clone());
        }
        let rows = readouts.iter().enumerate().map(|(window, readout)| {
            let kind = (readout.layer, readout.final_norm);
            let place = kinds
                .iter()
                .position(|other| *other == kind)
                .expect("listed above");
            Ok(all[place].narrow(0, window, 1)?)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The end token's row of the full tower, through the final norm, and projected.
    fn read_pooled(
        &self,
        last: &Tensor,
        windows: &[&Chunk],
        readouts: &[Readout],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wants = |kind| readouts.iter().any(|readout| readout.pooled == kind);
        let (normed, projected) = (wants(Pooled::Normed), wants(Pooled::Projected));
        if !normed && !projected {
            return Ok((None, None));
        }
        let ends = windows
            .iter()
            .enumerate()
            .map(|(index, window)| index * CONTEXT + window.end());
        let ends: Vec<u32> = ends
            .map(|end| {
                u32::try_from(end).map_err(|_| Error::new(ErrorKind::Request, "too many windows"))
            })
            .collect::<Result<_>>()?;
        let ends = Tensor::from_vec(ends, (windows.len(),), last.device())?;
        let rows = last.flatten_to(1)?.index_select(&ends, 0)?;
        let rows = self.final_norm.forward(&rows, &*self.kernels)?;
        let product = projected.then(|| self.project(&rows)).transpose()?;
        Ok((normed.then_some(rows), product))
    }

    fn project(&self, rows: &Tensor) -> Result<Tensor> {
        let projection = self.projection.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::MissingTensor,
                "the pooled vector needs the text projection",
            )
            .at_tensor("text_projection")
            .hint("this file was saved without it; take the encoder from another file")
        })?;
        self.kernels.linear(rows, projection, None)
    }
}

/// How far a forward must go.
struct Wanted {
    deepest: usize,
}

impl Wanted {
    fn keeps(&self, layer: usize, readouts: &[Readout]) -> bool {
        layer <= self.deepest && readouts.iter().any(|readout| readout.layer == layer)
    }
}

/// Reads tensors of one encoder in their two storage forms.
struct Loader<'a> {
    source: &'a dyn TensorSource,
    dtype: DType,
    device: &'a Device,
}

impl Loader<'_> {
    fn matrix(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, self.dtype, self.device)
    }

    fn vector(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, DType::F32, self.device)
    }
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn load(load: &Loader<'_>, name: &str) -> Result<Norm> {
        let weight = load.vector(&format!("{name}.weight"))?;
        let bias = load.vector(&format!("{name}.bias"))?;
        Ok(Norm { weight, bias })
    }

    fn forward(&self, x: &Tensor, kernels: &dyn Kernels) -> Result<Tensor> {
        kernels.layer_norm(x, &self.weight, &self.bias)
    }
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Tensor,
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
#[derive(Debug)]
struct Layer {
    norm1: Norm,
    query_key_value: Linear,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn load(load: &Loader<'_>, layer: usize) -> Result<Layer> {
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
    fn forward(&self, x: &Tensor, config: &ClipConfig, kernels: &dyn Kernels) -> Result<Tensor> {
        let (windows, rows, width) = x.dims3()?;
        let x = x.reshape((windows * rows, width))?;
        let qkv = self
            .query_key_value
            .forward(&self.norm1.forward(&x, kernels)?, kernels)?;
        let qkv = qkv.reshape((windows, rows, 3 * width))?;
        let mixed = kernels.causal_attention(&qkv, config.heads)?;
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
