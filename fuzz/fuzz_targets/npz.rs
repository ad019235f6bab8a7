#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use sd_conditioner::storage::{diffusers, kohya};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x_te_outputs.npz");
    fs::write(&path, bytes).expect("a file");
    let _ = kohya::load(&path);
    let _ = diffusers::load(&path);
});
