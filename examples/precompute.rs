//! Precompute the embeddings of many prompts into one safetensors file.
//!
//! `cargo run --example precompute -- prompts.txt embeddings.safetensors [model.safetensors]`
//! reads one prompt a line; without arguments a short list, tiny random weights and a temporary
//! file stand in.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use std::collections::HashMap;
use std::path::PathBuf;

use sd_conditioner::candle_core::{Tensor, safetensors};
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Request, Result};

/// Prompts in one call: one forward for each encoder over their distinct windows.
const BATCH: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let prompts = match arguments.first() {
        Some(path) => std::fs::read_to_string(path)?,
        None => "a lighthouse at dusk\na rusty robot\na lighthouse at dusk\n".to_owned(),
    };
    let default = || std::env::temp_dir().join("embeddings.safetensors");
    let out = arguments.get(1).map_or_else(default, PathBuf::from);
    let text = match arguments.get(2) {
        Some(path) => Conditioner::open(path)?,
        None => Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?,
    };

    let requests: Vec<Request<'_>> = prompts.lines().map(Request::new).collect();
    let tensors = encode(&text, &requests)?;
    safetensors::save(&tensors, &out)?;
    let (prompts, tensors, out) = (requests.len(), tensors.len(), out.display());
    println!("{prompts} prompts, {tensors} tensors -> {out}");
    Ok(())
}

/// `<line>.hidden_states` and, where there are some, `<line>.pooled` for each prompt.
fn encode(text: &Conditioner, requests: &[Request<'_>]) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for (batch, group) in requests.chunks(BATCH).enumerate() {
        for (offset, conditioning) in text.encode_batch(group)?.into_iter().enumerate() {
            let line = batch * BATCH + offset;
            let hidden_states = conditioning.context().clone();
            tensors.insert(format!("{line}.hidden_states"), hidden_states);
            if let Some(pooled) = conditioning.pooled() {
                tensors.insert(format!("{line}.pooled"), pooled.clone());
            }
        }
    }
    Ok(tensors)
}
