//! The reference programs' results in `tests/golden/conditioning`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use sd_conditioner::Family;
use sd_conditioner::candle_core::{self, Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

/// `manifest.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub seed: u64,
    pub cases: Vec<Case>,
}

/// One run of a reference program.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub id: String,
    pub implementation: String,
    pub family: String,
    pub positive: Value,
    #[serde(default)]
    pub negative: Value,
    #[serde(default)]
    pub options: Value,
    pub layouts: Vec<String>,
    pub tensors: BTreeMap<String, Stored>,
    #[serde(default)]
    pub tokens: BTreeMap<String, Value>,
    /// What a program says beside its tensors: A1111's schedules.
    #[serde(default)]
    pub extra: Value,
    pub tolerance: Tolerance,
}

/// Where a result is, and which of its rows.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    pub file: String,
    pub key: String,
    pub shape: Vec<usize>,
    pub rows: Option<Vec<u32>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tolerance {
    pub rel_f32: f64,
}

impl Case {
    pub(crate) fn family(&self) -> Family {
        let named = Family::ALL
            .into_iter()
            .find(|family| family.name() == self.family);
        named.expect("the manifest names the four families")
    }

    pub(crate) fn option(&self, name: &str) -> Option<&Value> {
        self.options.get(name).filter(|value| !value.is_null())
    }
}

/// Manifest and tensors.
pub(crate) struct Goldens {
    pub manifest: Manifest,
    files: HashMap<String, HashMap<String, Tensor>>,
}

impl Goldens {
    /// Reads the files of some implementations.
    pub(crate) fn load(implementations: &[&str]) -> Goldens {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/conditioning");
        let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
        let mut manifest: Manifest = serde_json::from_str(&text).unwrap();
        manifest
            .cases
            .retain(|case| implementations.contains(&case.implementation.as_str()));
        let names = manifest.cases.iter().flat_map(|case| case.tensors.values());
        let mut names: Vec<String> = names.map(|stored| stored.file.clone()).collect();
        names.sort();
        names.dedup();
        let load = |name: String| {
            let tensors = candle_core::safetensors::load(folder.join(&name), &Device::Cpu).unwrap();
            (name, tensors)
        };
        Goldens {
            manifest,
            files: names.into_iter().map(load).collect(),
        }
    }

    /// The stored rows, and the same rows of `ours`.
    pub(crate) fn rows(&self, stored: &Stored, ours: &Tensor) -> (Tensor, Tensor) {
        assert_eq!(ours.dims(), stored.shape, "{}", stored.key);
        let theirs = self.files[&stored.file][&stored.key].clone();
        let Some(rows) = &stored.rows else {
            return (theirs, ours.clone());
        };
        let index = Tensor::new(rows.as_slice(), &Device::Cpu).unwrap();
        (theirs, ours.index_select(&index, 1).unwrap())
    }
}
