//! `convert`: layouts and types, and what it refuses.

use std::path::{Path, PathBuf};

use sd_conditioner::weights::{Arrangement, EncoderId};
use tempfile::tempdir;

use crate::files::write;
use crate::support::{Ran, Written, read, run};

fn convert(from: &Path, out: &Path, more: &[&str]) -> Ran {
    let (from, out) = (from.to_str().unwrap(), out.to_str().unwrap());
    let mut arguments = vec!["convert", from, out];
    arguments.extend_from_slice(more);
    run(&arguments)
}

/// One tiny encoder in a file of its own.
fn standalone(folder: &Path, encoder: EncoderId) -> PathBuf {
    write(folder, "original.safetensors", encoder, "", &[])
}

/// What a prompt becomes with these weights.
fn encode_with(weights: &Path, out: &Path) -> Written {
    let (weights, file) = (weights.to_str().unwrap(), out.to_str().unwrap());
    let positive = ["--positive", "a lighthouse at dusk"];
    let mut arguments = vec!["encode", "--weights", weights, "--out", file];
    arguments.extend_from_slice(&positive);
    run(&arguments).expect(0);
    read(out)
}

#[test]
fn layouts_lead_back_and_condition_alike() {
    let folder = tempdir().unwrap();
    let original = standalone(folder.path(), EncoderId::ClipL);
    let diffusers = folder.path().join("diffusers");
    let single = folder.path().join("single.safetensors");
    let back = folder.path().join("back.safetensors");
    let ran = convert(&original, &diffusers, &["--layout", "diffusers"]).expect(0);
    assert!(ran.stdout.contains("config.json"), "{ran:#?}");
    assert!(ran.stdout.contains("model.safetensors"), "{ran:#?}");
    convert(&diffusers, &single, &["--layout", "single-file"]).expect(0);
    convert(&single, &back, &["--layout", "standalone"]).expect(0);
    let (before, after) = (read(&original), read(&back));
    assert_eq!(before.tensors, after.tensors);
    let one = encode_with(&original, &folder.path().join("1.safetensors"));
    for copy in [&diffusers, &single, &back] {
        let other = encode_with(copy, &folder.path().join("2.safetensors"));
        assert_eq!(one.tensors, other.tensors, "{}", copy.display());
    }
}

#[test]
fn types_and_single_encoders_can_be_chosen() {
    let folder = tempdir().unwrap();
    let original = standalone(folder.path(), EncoderId::OpenClipG);
    let half = folder.path().join("half.safetensors");
    let more = [
        "--layout",
        "standalone",
        "--dtype",
        "f16",
        "--encoder",
        "clip_g",
    ];
    convert(&original, &half, &more).expect(0);
    let written = read(&half);
    assert!(written.tensors.values().all(|(dtype, ..)| dtype == "F16"));
    let absent = ["--layout", "standalone", "--encoder", "clip_l"];
    let ran = convert(&original, &folder.path().join("none"), &absent).expect(1);
    assert!(ran.error().contains("no text encoder clip_l"), "{ran:#?}");
}

#[test]
fn wrong_use_is_told() {
    let folder = tempdir().unwrap();
    let original = standalone(folder.path(), EncoderId::ClipL);
    let out = folder.path().join("out");
    let ran = convert(&original, &out, &["--layout", "onnx"]).expect(2);
    for layout in Arrangement::ALL {
        assert!(ran.stderr.contains(layout.name()), "{ran:#?}");
    }
    convert(&original, &out, &[]).expect(2);
    let ran = convert(&original, &original, &["--layout", "standalone"]).expect(1);
    assert!(ran.error().contains("exists already"), "{ran:#?}");
    let missing = folder.path().join("missing.safetensors");
    convert(&missing, &out, &["--layout", "standalone"]).expect(1);
    assert!(!out.exists());
}
