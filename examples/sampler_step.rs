//! How a sampler follows lists of conditionings: areas, masks and ranges, blended as `ComfyUI` does.
//!
//! The U-Net is a toy: it sees the mean of the hidden states' first channels.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioning::{
    Area, Entry, LatentSize, Moment, Side, SigmaTable, guided, pair_areas,
};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, ConditioningList, Family, Result};

const STEPS: u32 = 8;
const SCALE: f64 = 7.5;

/// Noise in `x`, `[batch, 4, height, width]`, as a text has it predicted.
fn toy_unet(x: &Tensor, input: &Conditioning) -> Result<Tensor> {
    let seen = input.context().mean(1)?.narrow(1, 0, 4)?;
    let seen = seen.reshape((1, 4, 1, 1))?;
    Ok((x * 0.5)?.broadcast_add(&seen)?)
}

fn main() -> Result<()> {
    let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    let list = |prompt: &str| text.encode(prompt).map(ConditioningList::from);

    // A forest on the left, a lake on the right, and for the last half an etching of it all.
    let left = list("a forest")?.with_area(Area::of_pixels(256, 512, 0, 0), 1.0)?;
    let right = list("a lake")?.with_area(Area::of_pixels(256, 512, 256, 0), 0.8)?;
    let late = list("an etching")?.with_range(0.5, 1.0)?;
    let positive = left.combine(&right).combine(&late);

    // What does not change from step to step.
    let latent = LatentSize::of_pixels(512, 512);
    let (positive, negative) = pair_areas(&positive, &list("blurry")?, latent)?;
    let table = SigmaTable::stable_diffusion();
    let shape = (1, 4, latent.height, latent.width);
    let mut x = Tensor::ones(shape, DType::F32, &Device::Cpu)?;
    for step in 0..STEPS {
        let share = |step: u32| f64::from(step) / f64::from(STEPS);
        let sigma = table.at_percent(share(step).max(1e-9));
        let next = table.at_percent(share(step + 1));
        let table = &table;
        let moment = Moment::Sigma { sigma, table };
        let predict = |side: Side, list: &ConditioningList| {
            let unet = |x: &Tensor, entry: &Entry| toy_unet(x, &entry.for_latent(latent, side)?);
            list.predict(&x, moment, unet)
        };
        let wanted = predict(Side::Positive, &positive)?;
        let unwanted = predict(Side::Negative, &negative)?;
        let noise = guided(&wanted, &unwanted, SCALE)?;
        x = (x + (noise * (next - sigma))?)?; // Euler
        let active = positive.active_at(moment).count();
        println!("sigma {sigma:.3} to {next:.3}: {active} entries");
    }
    println!("latents {:?}", x.dims());
    Ok(())
}
