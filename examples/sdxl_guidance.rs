//! Where SDXL's conditioning goes: context into cross-attention, the vector (pooled and sizes)
//! into the time embedding.
//!
//! candle's U-Net takes no vector: a one-block U-Net with the `add_embedding` it lacks stands in.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder, VarMap, conv2d};
use candle_transformers::models::stable_diffusion::attention::{
    SpatialTransformer, SpatialTransformerConfig,
};
use candle_transformers::models::stable_diffusion::embeddings::{TimestepEmbedding, Timesteps};
use candle_transformers::models::stable_diffusion::resnet::{ResnetBlock2D, ResnetBlock2DConfig};
use sd_conditioner::candle_core::{DType, Device, Result, Tensor};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Request, SizeHints};

const CHANNELS: usize = 32;
const GUIDANCE_SCALE: f64 = 5.0;

struct TinySdxl {
    conv_in: Conv2d,
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    add_embedding: TimestepEmbedding,
    resnet: ResnetBlock2D,
    attention: SpatialTransformer,
    conv_out: Conv2d,
}

impl TinySdxl {
    fn new(vs: &VarBuilder<'_>, context: usize, vector: usize) -> Result<TinySdxl> {
        let time = 4 * CHANNELS;
        let resnet = ResnetBlock2DConfig {
            temb_channels: Some(time),
            ..Default::default()
        };
        let attention = SpatialTransformerConfig {
            context_dim: Some(context),
            ..Default::default()
        };
        Ok(TinySdxl {
            conv_in: conv2d(4, CHANNELS, 1, Conv2dConfig::default(), vs.pp("conv_in"))?,
            time_proj: Timesteps::new(CHANNELS, true, 0.0),
            time_embedding: TimestepEmbedding::new(vs.pp("time_embedding"), CHANNELS, time)?,
            add_embedding: TimestepEmbedding::new(vs.pp("add_embedding"), vector, time)?,
            resnet: ResnetBlock2D::new(vs.pp("resnet"), CHANNELS, resnet)?,
            attention: SpatialTransformer::new(vs.pp("attn"), CHANNELS, 4, 8, false, attention)?,
            conv_out: conv2d(CHANNELS, 4, 1, Conv2dConfig::default(), vs.pp("conv_out"))?,
        })
    }

    fn forward(&self, x: &Tensor, step: f32, context: &Tensor, vector: &Tensor) -> Result<Tensor> {
        let steps = Tensor::full(step, x.dim(0)?, x.device())?;
        let time = self.time_proj.forward(&steps)?;
        let time = self.time_embedding.forward(&time)?;
        let time = (time + self.add_embedding.forward(vector)?)?; // pooled and sizes go here
        let x = self.conv_in.forward(x)?;
        let x = self.resnet.forward(&x, Some(&time))?;
        let x = self.attention.forward(&x, Some(context))?; // hidden states go here
        self.conv_out.forward(&x)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let text = Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?;
    let positive = Request::new("a rusty robot on a beach").size(SizeHints::new(1216, 832));
    let negative = Request::absent().size(SizeHints::new(1216, 832)); // diffusers: zeros
    let batch = text.encode_pair(positive, negative)?.stacked()?;
    let vector = batch.vector()?.ok_or("SDXL has a vector")?;
    let weights = VarMap::new();
    let vs = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let unet = TinySdxl::new(&vs, batch.context().dim(2)?, vector.dim(1)?)?;
    let latents = Tensor::randn(0f32, 1.0, (1, 4, 16, 16), &Device::Cpu)?;
    let both = Tensor::cat(&[&latents, &latents], 0)?;
    let noise = unet.forward(&both, 999.0, batch.context(), &vector)?;
    let guided = (noise.get(0)? + ((noise.get(1)? - noise.get(0)?)? * GUIDANCE_SCALE)?)?;
    let shapes = (batch.context().dims(), vector.dims(), guided.dims());
    println!("context, vector, guided noise: {shapes:?}");
    Ok(())
}
