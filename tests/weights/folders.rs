//! diffusers folders: variants, shards, and what can be wrong with them.

use std::path::Path;

use sd_conditioner::weights::{Checkpoint, EncoderId};
use sd_conditioner::{ErrorKind, Family};

use super::layouts::check_equal;
use super::{check_refused, load};
use crate::support::checkpoints::{
    Layout, Projection, config, diffusers_source, huggingface, save_text, text_encoder, write,
};
use crate::support::entries::{Entry, Stored, save, save_sparse};

const L: EncoderId = EncoderId::ClipL;

fn entries(stored: Stored) -> Vec<Entry> {
    huggingface(
        &diffusers_source(L, 1),
        "",
        "text_model.",
        Projection::None,
        stored,
    )
}

/// An encoder's folder with a configuration and nothing else.
fn bare(folder: &Path) {
    save_text(&folder.join("config.json"), &config(L).to_string());
}

/// Two shards and their index.
fn shards(folder: &Path, index: &str, prefix: &str, stored: Stored) {
    bare(folder);
    let entries = entries(stored);
    let (first, second) = entries.split_at(20);
    let names = [1, 2].map(|number| format!("{prefix}-0000{number}-of-00002.safetensors"));
    save(&folder.join(&names[0]), first);
    save(&folder.join(&names[1]), second);
    let mut map = serde_json::Map::new();
    for (part, name) in [first, second].into_iter().zip(&names) {
        map.extend(
            part.iter()
                .map(|entry| (entry.name.clone(), name.clone().into())),
        );
    }
    let total: usize = entries
        .iter()
        .map(|entry| entry.shape.iter().product::<usize>())
        .sum();
    let total = total * stored.n_bytes();
    let text =
        serde_json::json!({"metadata": {"total_size": total}, "weight_map": map}).to_string();
    save_text(&folder.join(index), &text);
}

#[track_caller]
fn check_opens(folder: &Path, variant: Option<&str>, stored: Stored) -> Vec<String> {
    let checkpoint = Checkpoint::open_variant(folder, variant).expect("a folder of one encoder");
    let source = checkpoint.encoder(L).expect("L");
    check_equal(&*source, &diffusers_source(L, 1), stored);
    checkpoint.report().notes
}

#[test]
fn variants() {
    let folder = tempfile::tempdir().expect("a folder");
    bare(folder.path());
    save(
        &folder.path().join("model.fp16.safetensors"),
        &entries(Stored::F16),
    );
    check_opens(folder.path(), None, Stored::F16);
    save(
        &folder.path().join("model.safetensors"),
        &entries(Stored::F32),
    );
    let notes = check_opens(folder.path(), None, Stored::F32);
    assert!(
        notes[0].contains("`model.safetensors` was taken"),
        "{notes:?}"
    );
    check_opens(folder.path(), Some("fp16"), Stored::F16);
    let missing = Checkpoint::open_variant(folder.path(), Some("bf16"));
    check_refused(missing, ErrorKind::Io, &["bf16", "model.fp16.safetensors"]);
    let outside = Checkpoint::open_variant(folder.path(), Some("../x"));
    check_refused(outside, ErrorKind::Request, &["../x"]);
}

#[test]
fn sharded_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    shards(
        folder.path(),
        "model.safetensors.index.json",
        "model",
        Stored::F32,
    );
    assert!(check_opens(folder.path(), None, Stored::F32).is_empty());
    let folder = tempfile::tempdir().expect("a folder");
    shards(
        folder.path(),
        "model.safetensors.index.fp16.json",
        "model.fp16",
        Stored::F16,
    );
    assert!(check_opens(folder.path(), None, Stored::F16).is_empty());
}

/// Writes shards, changes the index's text, and expects a refusal.
#[track_caller]
fn check_index(change: impl Fn(&Path, String) -> String, kind: ErrorKind, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    shards(
        folder.path(),
        "model.safetensors.index.json",
        "model",
        Stored::F16,
    );
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).expect("there");
    save_text(&index, &change(folder.path(), text));
    check_refused(load(folder.path()), kind, words);
}

#[test]
fn broken_indexes() {
    let broken = ErrorKind::FileFormat;
    let second = "model-00002-of-00002.safetensors";
    let rename = |to: &'static str| move |_: &Path, text: String| text.replace(second, to);
    for bad in [
        "../x.safetensors",
        "a/b.safetensors",
        "/etc/passwd",
        "..",
        "a\\\\b.safetensors",
        "",
    ] {
        check_index(rename(bad), broken, &["not a plain file name"]);
    }
    check_index(
        rename("gone.safetensors"),
        ErrorKind::Io,
        &["gone.safetensors", "missing"],
    );
    check_index(
        |_, text| text.replace(&format!("\"{second}\""), "7"),
        broken,
        &["index", "cannot be read"],
    );
    check_index(
        |_, _| "{\"weight_map\":{}}".to_owned(),
        broken,
        &["names no tensor"],
    );
    check_index(|_, _| "{".to_owned(), broken, &["cannot be read"]);
    let extra = |_: &Path, text: String| {
        text.replace(
            "\"weight_map\":{",
            "\"weight_map\":{\"new\":\"model-00001-of-00002.safetensors\",",
        )
    };
    check_index(extra, broken, &["`new`", "lacks it"]);
    let twice = |folder: &Path, text: String| {
        std::fs::copy(
            folder.join(second),
            folder.join("model-00001-of-00002.safetensors"),
        )
        .expect("space");
        text
    };
    check_index(twice, broken, &["two files"]);
}

#[test]
fn a_wrong_total_is_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    shards(
        folder.path(),
        "model.safetensors.index.json",
        "model",
        Stored::F32,
    );
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).expect("there");
    save_text(&index, &text.replace("\"total_size\":", "\"total_size\":1"));
    let notes = check_opens(folder.path(), None, Stored::F32);
    assert!(notes[0].contains("total"), "{notes:?}");
}

#[test]
fn configurations_that_contradict_the_tensors() {
    let check = |field: &str, value: serde_json::Value, kind: ErrorKind, words: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(L);
        config[field] = value;
        save_text(&folder.path().join("config.json"), &config.to_string());
        save_sparse(
            &folder.path().join("model.safetensors"),
            &entries(Stored::F16),
        );
        check_refused(load(folder.path()), kind, words);
    };
    let mismatch = ErrorKind::Mismatch;
    check(
        "hidden_size",
        768.into(),
        mismatch,
        &["hidden_size", "768", "128"],
    );
    check(
        "num_hidden_layers",
        12.into(),
        mismatch,
        &["num_hidden_layers", "12", "3"],
    );
    check(
        "num_attention_heads",
        4.into(),
        mismatch,
        &["num_attention_heads", "4", "2"],
    );
    check(
        "intermediate_size",
        100.into(),
        mismatch,
        &["intermediate_size", "512"],
    );
    check(
        "vocab_size",
        50000.into(),
        mismatch,
        &["vocab_size", "50000", "49408"],
    );
    check(
        "layer_norm_eps",
        1e-6.into(),
        ErrorKind::Unsupported,
        &["layer_norm_eps"],
    );
    check("model_type", "t5".into(), ErrorKind::Unsupported, &["t5"]);
    check(
        "hidden_size",
        "wide".into(),
        ErrorKind::FileFormat,
        &["configuration"],
    );
}

#[test]
fn whole_clip_model_configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    let nested =
        serde_json::json!({"model_type": "clip", "hidden_size": 1, "text_config": config(L)});
    save_text(&folder.path().join("config.json"), &nested.to_string());
    save(
        &folder.path().join("model.safetensors"),
        &entries(Stored::F32),
    );
    check_opens(folder.path(), None, Stored::F32);
}

#[test]
fn folders_without_usable_weights() {
    let check = |file: &str, kind: ErrorKind, words: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        bare(folder.path());
        save_text(&folder.path().join(file), "x");
        check_refused(load(folder.path()), kind, words);
    };
    check("pytorch_model.bin", ErrorKind::FileFormat, &["1 bytes"]);
    check("flax_model.msgpack", ErrorKind::Unsupported, &["Flax"]);
    check("model.onnx", ErrorKind::Unsupported, &["ONNX"]);
    check("readme.md", ErrorKind::Io, &["neither", "readme.md"]);
}

/// Writes a pipeline, changes its index, and expects a refusal.
#[track_caller]
fn check_pipeline(family: Family, from: &str, to: &str, kind: ErrorKind, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), family, Layout::Diffusers, Stored::F16, 1);
    let index = folder.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).expect("there");
    assert!(text.contains(from), "{text}");
    save_text(&index, &text.replace(from, to));
    check_refused(load(folder.path()), kind, words);
}

#[test]
fn broken_pipelines() {
    let l = r#"["transformers","CLIPTextModel"]"#;
    let g = r#"["transformers","CLIPTextModelWithProjection"]"#;
    let (unknown, unsupported) = (ErrorKind::UnknownLayout, ErrorKind::Unsupported);
    check_pipeline(Family::Sd1, l, "[null,null]", unknown, &["no text encoder"]);
    check_pipeline(
        Family::Sd1,
        l,
        "7",
        ErrorKind::FileFormat,
        &["text_encoder"],
    );
    check_pipeline(
        Family::Sd1,
        l,
        r#"["transformers","T5EncoderModel"]"#,
        unsupported,
        &["T5EncoderModel"],
    );
    check_pipeline(
        Family::Sd1,
        "StableDiffusionPipeline",
        "FluxPipeline",
        unsupported,
        &["FluxPipeline"],
    );
    check_pipeline(
        Family::Sdxl,
        g,
        "[null,null]",
        ErrorKind::MissingTensor,
        &["second"],
    );
    check_pipeline(
        Family::Sdxl,
        l,
        "[null,null]",
        ErrorKind::MissingTensor,
        &["first"],
    );
    check_pipeline(
        Family::Sd1,
        "{",
        "[",
        ErrorKind::FileFormat,
        &["cannot be read"],
    );
    check_pipeline(
        Family::Refiner,
        "[null,null]",
        l,
        ErrorKind::Io,
        &["text_encoder", "missing"],
    );
}

#[test]
fn swapped_components() {
    let folder = tempfile::tempdir().expect("a folder");
    text_encoder(
        &folder.path().join("text_encoder"),
        EncoderId::OpenClipG,
        Stored::F16,
        1,
    );
    text_encoder(&folder.path().join("text_encoder_2"), L, Stored::F16, 1);
    let checkpoint = load(folder.path());
    check_refused(checkpoint, ErrorKind::Mismatch, &["swapped"]);
}
