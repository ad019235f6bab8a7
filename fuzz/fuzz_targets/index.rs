#![no_main]

mod files;

use std::fs;

use libfuzzer_sys::fuzz_target;

// The two JSON files of a folder, one after the other: the index of shards, and the configuration.
fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (index, config) = bytes.split_at(middle);
    fs::write(folder.path().join("model.safetensors.index.json"), index).expect("a file");
    fs::write(folder.path().join("config.json"), config).expect("a file");
    fs::write(folder.path().join("model-00001-of-00001.safetensors"), b"").expect("a file");
    files::open(folder.path());
});
