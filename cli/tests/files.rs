//! Checkpoint files: `inspect`, and `encode --weights PATH`.

use std::path::{Path, PathBuf};

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize, TensorSource as _};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{encode, read, run};

/// A tiny encoder as transformers would save it, below `root`.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    encoder: EncoderId,
    root: &str,
    extra: &[&str],
) -> PathBuf {
    let source = Synthetic::new(encoder, SyntheticSize::Tiny, 73);
    let load = |name: &String| source.load(name, DType::F32, &Device::Cpu).unwrap();
    let names = source.names();
    let mut tensors: Vec<(String, Tensor)> = names
        .iter()
        .map(|name| (format!("{root}{}", transformers(name)), load(name)))
        .collect();
    for name in extra {
        let tensor = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
        tensors.push(((*name).to_owned(), tensor));
    }
    let path = folder.join(name);
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    path
}

fn transformers(canonical: &str) -> String {
    let renamed = canonical
        .replace("token_embedding", "embeddings.token_embedding.weight")
        .replace("position_embedding", "embeddings.position_embedding.weight")
        .replace("final_ln", "final_layer_norm")
        .replace("layers.", "encoder.layers.")
        .replace("ln1", "layer_norm1")
        .replace("ln2", "layer_norm2")
        .replace(".fc", ".mlp.fc");
    let attention = ["q", "k", "v", "out"]
        .into_iter()
        .fold(renamed, |name, part| {
            name.replace(&format!(".{part}."), &format!(".self_attn.{part}_proj."))
        });
    match attention.as_str() {
        "projection" => "text_projection.weight".to_owned(),
        name => format!("text_model.{name}"),
    }
}

#[test]
fn inspect_shows_what_is_there() {
    let folder = tempdir().unwrap();
    let root = "cond_stage_model.transformer.";
    let odd = "cond_stage_model.transformer.text_model.odd.weight";
    let extra = [odd, "model.diffusion_model.out.2.bias"];
    let path = write(
        folder.path(),
        "sd1.safetensors",
        EncoderId::ClipL,
        root,
        &extra,
    );
    let path = path.to_str().unwrap();
    let shown: Value =
        serde_json::from_str(&run(&["inspect", path, "--json"]).expect(0).stdout).unwrap();
    assert_eq!(shown["family"], "sd1");
    assert_eq!(shown["container"], "safetensors");
    let encoder = &shown["encoders"][0];
    assert_eq!(
        (&encoder["encoder"], &encoder["layout"]),
        (&"clip_l".into(), &"S1".into())
    );
    assert_eq!(
        (&encoder["width"], &encoder["layers"]),
        (&128.into(), &3.into())
    );
    assert!(encoder["dtypes"]["F32"].as_u64().unwrap() > 50);
    assert_eq!(shown["unused"], Value::from(vec![odd]));
    let text = run(&["inspect", path]).expect(0).stdout;
    for part in ["sd1", "clip_l", "S1", "F32", "unused", odd] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn files_give_the_numbers_of_the_weights_in_them() {
    let folder = tempdir().unwrap();
    let write = |name, encoder| write(folder.path(), name, encoder, "", &[]);
    let first = write("l.safetensors", EncoderId::ClipL);
    let second = write("g.safetensors", EncoderId::OpenClipG);
    let [out, want] = ["out", "want"].map(|name| folder.path().join(name));
    let start = [
        "encode",
        "--positive",
        "a cat",
        "--out",
        out.to_str().unwrap(),
        "--weights",
    ];
    let paths = [first.to_str().unwrap(), second.to_str().unwrap()];
    for (weights, family) in [
        (&paths[..], "sdxl"),
        (&paths[..1], "sd1"),
        (&paths[1..], "refiner"),
    ] {
        let ran = run(&[&start[..], weights].concat()).expect(0);
        assert!(!ran.stderr.contains("mean nothing"));
        encode(family, &["--positive", "a cat"], &want).expect(0);
        let (written, want) = (read(&out), read(&want));
        assert_eq!(written.metadata["family"], family);
        assert!(!written.metadata.contains_key("random_weights"));
        assert!(!written.metadata["checkpoint_hash"].is_empty());
        for name in want.names() {
            assert_eq!(written.bytes(name), want.bytes(name), "{family} {name}");
        }
    }
    let tokens = [
        "tokens",
        "--json",
        "--positive",
        "a",
        "--weights",
        paths[0],
        paths[1],
    ];
    let shown: Value = serde_json::from_str(&run(&tokens).expect(0).stdout).unwrap();
    assert_eq!(shown["family"], "sdxl");
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    std::fs::write(&path, "not a checkpoint").unwrap();
    let path = path.to_str().unwrap();
    for command in [
        vec!["inspect", path],
        vec!["inspect", "/nonexistent/file"],
        vec![
            "encode",
            "--weights",
            path,
            "--positive",
            "a",
            "--out",
            "/tmp/never",
        ],
        vec!["tokens", "--weights", path, "--positive", "a"],
    ] {
        let ran = run(&command).expect(1);
        assert!(ran.error().contains(command[1]) || ran.error().contains(path));
        assert!(ran.stdout.is_empty());
    }
}

/// The error begins with the file that is wrong, not with the one that would have been written.
#[test]
fn weights_that_are_none_are_the_error() {
    let folder = tempdir().unwrap();
    let [bad, out] = ["bad.safetensors", "out.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&bad, [0x93; 100]).unwrap();
    let (path, target) = (bad.to_str().unwrap(), out.to_str().unwrap());
    let start = ["encode", "--weights", path, "--positive", "a", "--out"];
    let ran = run(&[&start[..], &[target]].concat()).expect(1);
    assert!(
        ran.error().starts_with(&format!("error: {path}")),
        "{ran:?}"
    );
    assert!(!out.exists());
}
