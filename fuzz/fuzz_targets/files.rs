//! Bytes that are opened as a file, by everything that opens files.

use std::fs;
use std::path::Path;

use sd_conditioner::weights::{Checkpoint, Embedding};

/// Opens a checkpoint and reads each of its encoders.
pub fn open(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return;
    };
    let _ = checkpoint.summary();
    let _ = checkpoint.fingerprint();
    for encoder in checkpoint.encoders() {
        let Ok(source) = checkpoint.encoder(encoder) else {
            continue;
        };
        for name in source.names() {
            let _ = source.load(&name, candle(), &sd_conditioner::candle_core::Device::Cpu);
        }
    }
}

const fn candle() -> sd_conditioner::candle_core::DType {
    sd_conditioner::candle_core::DType::F32
}

/// Opens the bytes as a checkpoint and as an embedding.
pub fn open_bytes(bytes: &[u8], extension: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("input.{extension}"));
    fs::write(&path, bytes).expect("a file");
    open(&path);
    let _ = Embedding::open(&path);
}
