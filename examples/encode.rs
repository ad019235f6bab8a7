//! Encode a prompt and its negative, and look at what comes out.
//!
//! `cargo run --example encode -- model.safetensors` reads a checkpoint; without an argument tiny
//! random weights stand in, and the numbers mean nothing.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request, SizeHints};

fn main() -> sd_conditioner::Result<()> {
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
            println!(
                "{encoder}: {} tokens, {:?}…",
                chunk.content(),
                &chunk.ids()[..8]
            );
        }
    }

    let negative = Request::new("blurry")
        .profile(Profile::ComfyUi)
        .size(SizeHints::new(1216, 832));
    let guidance = text.encode_pair(positive, negative)?;
    for (name, side) in [
        ("positive", guidance.positive()),
        ("negative", guidance.negative()),
    ] {
        println!("{name}: context {:?}", side.context().dims());
        if let (Some(pooled), Some(vector)) = (side.pooled(), side.vector()?) {
            println!(
                "{name}: pooled {:?}, vector {:?}",
                pooled.dims(),
                vector.dims()
            );
        }
    }
    println!("stacked: {:?}", guidance.stacked()?.context().dims());
    Ok(())
}
