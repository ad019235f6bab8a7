//! Encode a prompt and its negative, and look at what comes out.
//!
//! `cargo run --example encode -- model.safetensors` reads a checkpoint; without an argument tiny
//! random weights stand in, and the numbers mean nothing.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request, Result, SizeHints};

fn main() -> Result<()> {
    let text = match std::env::args().nth(1) {
        Some(path) => Conditioner::open(path)?,
        None => Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?,
    };
    println!("family {}, kernels {}", text.family(), text.kernels());

    let positive = Request::new("a lighthouse on a cliff at dusk, drifting fog")
        .profile(Profile::ComfyUi)
        .size(SizeHints::new(1216, 832));
    for (encoder, chunks) in text.chunks(positive.clone())? {
        for chunk in &chunks {
            let (count, ids) = (chunk.content(), &chunk.ids()[..8]);
            println!("{encoder}: {count} tokens, {ids:?}…");
        }
    }

    let negative = Request::new("blurry")
        .profile(Profile::ComfyUi)
        .size(SizeHints::new(1216, 832));
    let guidance = text.encode_pair(positive, negative)?;
    show("positive", guidance.positive())?;
    show("negative", guidance.negative())?;
    println!("stacked: {:?}", guidance.stacked()?.context().dims());
    Ok(())
}

/// The shapes that a U-Net is given.
fn show(name: &str, side: &Conditioning) -> Result<()> {
    println!("{name}: context {:?}", side.context().dims());
    if let (Some(pooled), Some(vector)) = (side.pooled(), side.vector()?) {
        let (pooled, vector) = (pooled.dims(), vector.dims());
        println!("{name}: pooled {pooled:?}, vector {vector:?}");
    }
    Ok(())
}
