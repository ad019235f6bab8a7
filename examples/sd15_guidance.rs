//! Classifier-free guidance through candle-transformers' own SD 1.5 U-Net and DDIM scheduler, from noise to latents.
//!
//! The U-Net here is a tiny one with random weights, so the picture would be noise. For a real one, load the encoders
//! with `Conditioner::builder().device(device).output_dtype(dtype).open("v1-5-pruned-emaonly.safetensors")`, take
//! `StableDiffusionConfig::v1_5(None, None, None).build_unet(file, &device, 4, false, dtype)` with the same device and
//! type, and latents of 64×64; nothing else changes.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::stable_diffusion::ddim::DDIMSchedulerConfig;
use candle_transformers::models::stable_diffusion::schedulers::SchedulerConfig as _;
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family};

const STEPS: usize = 4;

/// How strongly the prompt is followed.
const GUIDANCE_SCALE: f64 = 7.5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    let batch = text
        .encode_pair("a rusty robot on a beach", "blurry, low quality")?
        .stacked()?;

    let unet = tiny_unet(batch.context().dim(2)?)?;
    let mut scheduler = DDIMSchedulerConfig::default().build(STEPS)?;
    let noise = Tensor::randn(0f32, 1.0, (1, 4, 16, 16), &Device::Cpu)?;
    let mut latents = (noise * scheduler.init_noise_sigma())?;
    for timestep in scheduler.timesteps().to_vec() {
        let both = Tensor::cat(&[&latents, &latents], 0)?; // negative first, then positive
        let both = scheduler.scale_model_input(both, timestep)?;
        let noise = unet.forward(&both, timestep as f64, batch.context())?;
        let (negative, positive) = (noise.narrow(0, 0, 1)?, noise.narrow(0, 1, 1)?);
        let guided = (&negative + ((positive - &negative)? * GUIDANCE_SCALE)?)?;
        latents = scheduler.step(&guided, timestep, &latents)?;
    }
    let (context, latents) = (batch.context().dims(), latents.dims());
    println!("context {context:?} -> latents {latents:?}");
    Ok(())
}

/// SD 1.5's U-Net with two narrow blocks.
fn tiny_unet(context_width: usize) -> sd_conditioner::candle_core::Result<UNet2DConditionModel> {
    let block = |out_channels, use_cross_attn| BlockConfig {
        out_channels,
        use_cross_attn,
        attention_head_dim: 4,
    };
    let config = UNet2DConditionModelConfig {
        blocks: vec![block(32, Some(1)), block(32, None)],
        layers_per_block: 1,
        cross_attention_dim: context_width,
        ..UNet2DConditionModelConfig::default()
    };
    let weights = VarMap::new();
    let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    UNet2DConditionModel::new(builder, 4, 4, false, config)
}
