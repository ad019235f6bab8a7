//! One step of classifier-free guidance through candle-transformers' own SD 1.5 U-Net.
//!
//! The U-Net here is a tiny one with random weights, so the picture would be noise; with the real
//! U-Net and `Conditioner::open("v1-5-pruned-emaonly.safetensors")` nothing else changes.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family};

/// How strongly the prompt is followed.
const GUIDANCE_SCALE: f64 = 7.5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    let batch = text
        .encode_pair("a rusty robot on a beach", "blurry, low quality")?
        .stacked()?;

    let unet = tiny_unet(batch.context().dim(2)?)?;
    let latents = Tensor::randn(0f32, 1.0, (1, 4, 16, 16), &Device::Cpu)?;
    let both = Tensor::cat(&[&latents, &latents], 0)?; // negative first, then positive
    let noise = unet.forward(&both, 999.0, batch.context())?;
    let (negative, positive) = (noise.get(0)?, noise.get(1)?);
    let guided = (&negative + ((positive - &negative)? * GUIDANCE_SCALE)?)?;
    println!(
        "context {:?} -> guided noise {:?}",
        batch.context().dims(),
        guided.dims()
    );
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
