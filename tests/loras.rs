//! `LoRA`s: every formula against a plain twin, what is refused, what is shared, what is reported.

mod attach;
mod dressed;
mod families;
mod folder;
mod formulas;
mod kinds;
mod malformed;
mod plain;
mod pools;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sd_conditioner::candle_core::{DType, Tensor};
use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::weights::{EncoderId, Lora, Synthetic, SyntheticSize, WeightedLora};
use sd_conditioner::{Conditioner, Family, Result};

use crate::support::entries::{Entry, Stored, save_with};

/// The seed of the encoders here.
const SEED: u64 = 73;

/// Tiny encoders of a family in f32.
fn tiny(family: Family) -> Conditioner {
    let builder = Conditioner::builder().cache(CacheOptions::OFF);
    builder
        .random_weights(family, SyntheticSize::Tiny, SEED)
        .unwrap()
}

/// Seeded values between -1 and 1, times `scale`.
fn values(name: &str, count: usize, scale: f64) -> Vec<f32> {
    Synthetic::plain(SEED, "test", name, count, scale)
}

/// A tensor of seeded values, named after itself.
fn entry(name: &str, shape: &[usize], scale: f64) -> Entry {
    let key = name.to_owned();
    let count = shape.iter().product();
    Entry::new(name, Stored::F32, shape, move || values(&key, count, scale))
}

fn scalar(name: &str, value: f32) -> Entry {
    Entry::filled(name, Stored::F32, &[], value)
}

/// A file in a folder of its own, which lives as long as this does.
struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn write(entries: &[Entry]) -> Written {
    write_with(entries, &[])
}

fn write_with(entries: &[Entry], metadata: &[(&str, &str)]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = save_with(&folder.path().join("lora.safetensors"), entries, metadata);
    Written {
        _folder: folder,
        path,
    }
}

impl Written {
    fn open(&self) -> Result<Lora> {
        Lora::open(&self.path)
    }

    fn at(&self, strength: f64) -> WeightedLora {
        self.open().unwrap().at(strength)
    }
}

/// Every tensor of every encoder by `clip_l.layers.0.q.weight`, as it is kept.
fn tensors(text: &Conditioner) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for clip in text.encoders() {
        let encoder: EncoderId = clip.config().encoder;
        let _same = clip
            .with_changes(&mut |name, tensor| {
                all.insert(format!("{encoder}.{name}"), tensor.clone());
                Ok(None)
            })
            .unwrap();
    }
    all
}

/// The bits of a tensor of any floating type, widened to f32 (which is exact).
fn exact(tensor: &Tensor) -> Vec<u32> {
    let wide = tensor.to_dtype(DType::F32).unwrap();
    let values: Vec<f32> = wide.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}
