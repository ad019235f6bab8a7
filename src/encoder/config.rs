//! What an encoder is, read off its tensors' shapes.

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Activation;
use crate::weights::{EncoderId, TensorSource};

/// Channels of one attention head, in every tower that Stable Diffusion uses.
pub(super) const HEAD_WIDTH: usize = 64;

/// The dimensions of one text encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipConfig {
    /// Which encoder.
    pub encoder: EncoderId,
    /// Channels of a hidden state.
    pub width: usize,
    /// Layers in the file. `OpenCLIP`'s ViT-H has 24; diffusers ships it cut to 23.
    pub layers: usize,
    /// Layers of the whole tower, whatever the file holds.
    pub full_layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels inside the MLP.
    pub mlp_width: usize,
    /// Rows of the token-embedding table; 49408 or more.
    pub vocabulary: usize,
    /// The non-linearity. No tensor tells it: it is what the source's configuration names, or else
    /// follows from the encoder.
    pub activation: Activation,
    /// Channels of the projected pooled vector, where the file has a projection.
    pub projection: Option<usize>,
}

impl ClipConfig {
    /// Reads the dimensions of `source`; loads nothing.
    pub fn detect(encoder: EncoderId, source: &dyn TensorSource) -> Result<ClipConfig> {
        let [vocabulary, width] = shape2(source, "token_embedding")?;
        let [mlp_width, _] = shape2(source, "layers.0.fc1.weight")?;
        let layers = (0..source.names().len())
            .take_while(|layer| source.info(&format!("layers.{layer}.fc1.weight")).is_some())
            .count();
        let projection = source
            .info("projection")
            .and_then(|info| info.shape.first().copied());
        Ok(ClipConfig {
            encoder,
            width,
            layers,
            full_layers: encoder.full_layers(width, layers),
            heads: width / HEAD_WIDTH,
            mlp_width,
            vocabulary,
            activation: match source.hidden_act() {
                Some(name) => named(name)?,
                None => activation(encoder),
            },
            projection,
        })
    }
}

/// Which GELU a forward has.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// Each encoder's own: what its configuration names, else quick GELU in ViT-L and the exact one in
    /// ViT-H and ViT-bigG.
    Own,
    /// The tanh form in ViT-H and ViT-bigG, quick GELU in ViT-L, whatever a configuration names
    /// (stable-diffusion.cpp: `CLIPMLP` in `src/model/te/clip.hpp` goes by the width). It is computed in f32,
    /// as ggml's CUDA kernels do; its CPU kernels read both from tables of 16-bit values.
    Tanh,
}

impl ClipConfig {
    /// The non-linearity of an encoder with this configuration where such a GELU is wanted.
    pub const fn activation_with(&self, gelu: Gelu) -> Activation {
        match (gelu, self.encoder) {
            (Gelu::Own, _) => self.activation,
            (Gelu::Tanh, EncoderId::ClipL) => Activation::QuickGelu,
            (Gelu::Tanh, EncoderId::OpenClipH | EncoderId::OpenClipG) => Activation::GeluTanh,
        }
    }
}

/// OpenAI's tower has quick GELU; `OpenCLIP`'s H and bigG have exact GELU
/// (`open_clip/model_configs/ViT-H-14.json`, `ViT-bigG-14.json`: no `quick_gelu`).
const fn activation(encoder: EncoderId) -> Activation {
    match encoder {
        EncoderId::ClipL => Activation::QuickGelu,
        EncoderId::OpenClipH | EncoderId::OpenClipG => Activation::GeluErf,
    }
}

/// What transformers calls them (`ACT2FN` in its `activations.py`).
fn named(name: &str) -> Result<Activation> {
    match name {
        "quick_gelu" => Ok(Activation::QuickGelu),
        "gelu" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        _ => {
            let message = format!("the activation `{name}` is not one that CLIP encoders have");
            let error = Error::new(ErrorKind::Unsupported, message);
            Err(error.hint("quick_gelu, gelu, gelu_new and gelu_pytorch_tanh are known"))
        }
    }
}

fn shape2(source: &dyn TensorSource, name: &str) -> Result<[usize; 2]> {
    let info = source.info(name).ok_or_else(|| {
        Error::new(
            ErrorKind::MissingTensor,
            "the text encoder has no such tensor",
        )
        .at_tensor(name)
    })?;
    <[usize; 2]>::try_from(info.shape.as_slice()).map_err(|_| {
        let message = format!("a matrix was expected, the shape is {:?}", info.shape);
        Error::new(ErrorKind::TensorShape, message).at_tensor(name)
    })
}
