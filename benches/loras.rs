//! Time of putting a LoRA on full-size SDXL encoders: rank 32 on all 264 modules, f16, sd-scripts'
//! names, random values.
//!
//! `cargo bench --bench loras` needs 6 GB of memory.
#![expect(clippy::print_stdout, reason = "a program that shows what it measures")]

#[expect(dead_code, reason = "the tests write more kinds of files")]
#[path = "../tests/support/entries.rs"]
mod entries;

use std::path::{Path, PathBuf};
use std::time::Instant;

use entries::{Entry, Stored, save};
use sd_conditioner::candle_core::DType;
use sd_conditioner::weights::{EncoderId, Lora, Synthetic, SyntheticSize, TensorSource as _};
use sd_conditioner::{Conditioner, Family};

const SEED: u64 = 73;
const RANK: usize = 32;
const RUNS: usize = 5;

/// Canonical and sd-scripts' names.
const MODULES: [(&str, &str); 6] = [
    ("q", "self_attn_q_proj"),
    ("k", "self_attn_k_proj"),
    ("v", "self_attn_v_proj"),
    ("out", "self_attn_out_proj"),
    ("fc1", "mlp_fc1"),
    ("fc2", "mlp_fc2"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path());
    println!(
        "| kept in | reading the header, ms | putting it on, s: median of {RUNS} (least) | modules |\n|---|---|---|---|"
    );
    for dtype in [DType::F32, DType::F16] {
        let text = Conditioner::builder().dtype(dtype);
        let text = text.random_weights(Family::Sdxl, SyntheticSize::Full, SEED)?;
        let start = Instant::now();
        let lora = Lora::open(&file)?;
        let header = start.elapsed().as_secs_f64() * 1e3;
        let (mut seconds, mut modules) = (Vec::new(), 0);
        for _ in 0..RUNS {
            let start = Instant::now();
            let worn = text.with_loras(&[lora.at(0.8)])?;
            seconds.push(start.elapsed().as_secs_f64());
            modules = worn.lora_reports()[0].applied.values().sum();
        }
        seconds.sort_by(f64::total_cmp);
        let (median, least) = (seconds[RUNS / 2], seconds[0]);
        println!("| {dtype:?} | {header:.1} | {median:.2} ({least:.2}) | {modules} |");
    }
    Ok(())
}

fn write(folder: &Path) -> PathBuf {
    let of = [
        ("lora_te1", EncoderId::ClipL),
        ("lora_te2", EncoderId::OpenClipG),
    ];
    let all = of
        .iter()
        .flat_map(|(prefix, encoder)| modules(prefix, *encoder));
    save(&folder.join("lora.safetensors"), &all.collect::<Vec<_>>())
}

fn modules(prefix: &str, encoder: EncoderId) -> Vec<Entry> {
    let source = Synthetic::new(encoder, SyntheticSize::Full, SEED);
    let shape = |layer: usize, module: &str| {
        let info = source.info(&format!("layers.{layer}.{module}.weight"));
        info.map(|info| info.shape)
    };
    let mut all = Vec::new();
    for layer in (0..).take_while(|layer| shape(*layer, "q").is_some()) {
        for (canonical, name) in MODULES {
            let Some(shape) = shape(layer, canonical) else {
                continue;
            };
            let name = format!("{prefix}_text_model_encoder_layers_{layer}_{name}");
            all.extend(module(&name, [shape[0], shape[1]]));
        }
    }
    all
}

/// Both matrices of a module of this shape, and its alpha.
fn module(name: &str, [outputs, inputs]: [usize; 2]) -> [Entry; 3] {
    [
        matrix(&format!("{name}.lora_down.weight"), [RANK, inputs]),
        matrix(&format!("{name}.lora_up.weight"), [outputs, RANK]),
        Entry::filled(&format!("{name}.alpha"), Stored::F16, &[], 16.0),
    ]
}

fn matrix(name: &str, shape: [usize; 2]) -> Entry {
    let key = name.to_owned();
    let make = move || Synthetic::plain(SEED, "bench", &key, shape[0] * shape[1], 0.01);
    Entry::new(name, Stored::F16, &shape, make)
}
