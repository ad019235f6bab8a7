//! Files of real sizes for the benches: the text part of an SDXL checkpoint, and a whole one.

#[expect(dead_code, reason = "the tests write more kinds of files")]
#[path = "../tests/support/entries.rs"]
mod entries;
#[expect(dead_code, reason = "the tests write more kinds of files")]
#[path = "../tests/support/spelling.rs"]
mod spelling;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};

use entries::{Entry, Stored, header};
use spelling::{Projection, huggingface, open_clip};

/// Where the names of the encoders begin; they lie before all others.
const TEXT: &str = "conditioner.";

/// An SDXL checkpoint as it is published, in f16: with `others` it has a U-Net and a VAE of a real
/// one's size, all values zero and none stored; without `text` the encoders are holes too. The range
/// of the encoders' bytes.
pub(crate) fn write(path: &Path, seed: u64, text: bool, others: bool) -> io::Result<Range<u64>> {
    let mut entries = towers(seed);
    if others {
        entries.extend(beside());
    }
    let (order, header) = header(&entries);
    let n_bytes =
        |entry: &Entry| (entry.shape.iter().product::<usize>() * entry.stored.n_bytes()) as u64;
    let is_text = |entry: &&Entry| entry.name.starts_with(TEXT);
    let start = header.len() as u64;
    let end = start + order.iter().take_while(is_text).map(n_bytes).sum::<u64>();
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&header)?;
    for entry in order.iter().take_while(|entry| text && is_text(entry)) {
        file.write_all(&entry.stored.bytes(&(entry.make)()))?;
    }
    let length = start + order.iter().map(n_bytes).sum::<u64>();
    file.into_inner()?.set_len(length)?;
    Ok(start..end)
}

fn beside() -> Vec<Entry> {
    let zeros = |name: &str, shape: &[usize]| Entry::filled(name, Stored::F16, shape, 0.0);
    let unet = |name: &str, shape: &[usize]| zeros(&format!("model.diffusion_model.{name}"), shape);
    let cross = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight";
    let mut entries = vec![unet(cross, &[640, 2048])];
    entries.extend((0..1680).map(|n| unet(&format!("output_blocks.{n}.weight"), &[1024, 1536])));
    let vae = |n| format!("first_stage_model.decoder.{n}.weight");
    entries.extend((0..250).map(|n| zeros(&vae(n), &[512, 340])));
    entries
}

fn towers(seed: u64) -> Vec<Entry> {
    let source = |encoder| Synthetic::new(encoder, SyntheticSize::Full, seed);
    let [first, second] = [
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.1.model.",
    ];
    let (l, g) = (source(EncoderId::ClipL), source(EncoderId::OpenClipG));
    let mut entries = huggingface(&l, first, "text_model.", Projection::None, Stored::F16);
    entries.extend(open_clip(&g, second, Projection::Bare, Stored::F16));
    entries
}
