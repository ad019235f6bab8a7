//! Readable files whose tensors are not a whole, known text encoder.

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::{Checkpoint, EncoderId};

use super::{check_refused, load};
use crate::support::checkpoints::{Projection, huggingface, open_clip, source};
use crate::support::entries::{Entry, Stored, save_sparse};

/// L in transformers' names, in a standalone file.
pub(super) fn l() -> Vec<Entry> {
    huggingface(
        &source(EncoderId::ClipL, 1),
        "",
        "text_model.",
        Projection::None,
        Stored::F16,
    )
}

/// An encoder below an SGM or LDM prefix.
pub(super) fn at(encoder: EncoderId, prefix: &str) -> Vec<Entry> {
    let source = source(encoder, 1);
    if prefix.ends_with("transformer.") {
        huggingface(
            &source,
            prefix,
            "text_model.",
            Projection::None,
            Stored::F16,
        )
    } else {
        open_clip(&source, prefix, Projection::Bare, Stored::F16)
    }
}

pub(super) fn tensor(name: &str, shape: &[usize]) -> Entry {
    Entry::filled(name, Stored::F16, shape, 0.0)
}

#[track_caller]
pub(super) fn check(entries: &[Entry], kind: ErrorKind, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = save_sparse(&folder.path().join("file.safetensors"), entries);
    check_refused(load(&path), kind, words);
}

/// L after a change.
#[track_caller]
fn check_changed(change: impl Fn(&mut Entry), kind: ErrorKind, words: &[&str]) {
    let mut entries = l();
    entries.iter_mut().for_each(change);
    check(&entries, kind, words);
}

#[track_caller]
fn check_without(part: &str, words: &[&str]) {
    let mut entries = l();
    entries.retain(|entry| !entry.name.contains(part));
    check(&entries, ErrorKind::MissingTensor, words);
}

#[test]
fn missing_tensors() {
    check_without(
        "final_layer_norm.bias",
        &["text_model.final_layer_norm.bias", "1 problem"],
    );
    check_without(
        "layers.1.self_attn.k_proj.weight",
        &["layers.1.self_attn.k_proj.weight", "missing"],
    );
    check_without(
        "position_embedding",
        &["position_embedding.weight", "missing"],
    );
    check_without("layers.1.", &["layer 1 is missing", "up to 2"]);
    check_without("token_embedding", &["no token embedding"]);
    check_without("self_attn", &["24 problem", "and 14 more"]);
}

#[test]
fn a_fused_weight_without_its_bias() {
    let mut entries = at(EncoderId::OpenClipH, "cond_stage_model.model.");
    entries.retain(|entry| !entry.name.ends_with("resblocks.2.attn.in_proj_bias"));
    check(
        &entries,
        ErrorKind::MissingTensor,
        &["resblocks.2.attn.in_proj_bias", "clip_h"],
    );
}

#[test]
fn wrong_shapes() {
    let shape = ErrorKind::TensorShape;
    let set = |part: &'static str, shape: &'static [usize]| {
        move |entry: &mut Entry| {
            if entry.name.contains(part) {
                entry.shape = shape.to_vec();
            }
        }
    };
    check_changed(
        set("layers.0.mlp.fc1.weight", &[256, 128]),
        shape,
        &["fc1.weight", "[256, 128]", "[512, 128]"],
    );
    check_changed(
        set("final_layer_norm.bias", &[128, 1]),
        shape,
        &["final_layer_norm.bias"],
    );
    check_changed(
        set("layers.0.layer_norm1.weight", &[0]),
        shape,
        &["layer_norm1.weight", "[0]"],
    );
    check_changed(
        set("token_embedding", &[49000, 128]),
        shape,
        &["49000", "49408"],
    );
    check_changed(set("token_embedding", &[49408, 100]), shape, &["100", "64"]);
    check_changed(set("token_embedding", &[49408]), shape, &["two dimensions"]);
    check_changed(
        set("position_embedding", &[64, 128]),
        shape,
        &["64 positions"],
    );
    check_changed(
        set("position_embedding", &[248, 128]),
        ErrorKind::Unsupported,
        &["LongCLIP", "248"],
    );
    check_changed(set("layers.2.self_attn", &[3]), shape, &["8 problem"]);
}

#[test]
fn added_tokens_are_kept() {
    let mut entries = l();
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.name.contains("token_embedding"))
    {
        entry.shape = vec![49410, 128];
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = save_sparse(&folder.path().join("file.safetensors"), &entries);
    let encoders = load(&path).expect("L with two added tokens");
    assert_eq!(
        encoders[0].1.info("token_embedding").expect("listed").shape,
        [49410, 128]
    );
}

#[test]
fn unknown_sizes() {
    let unknown = ErrorKind::UnknownLayout;
    let sized = |width: usize, n_layers: usize| {
        let mut entries = vec![tensor(
            "text_model.embeddings.token_embedding.weight",
            &[49408, width],
        )];
        for layer in 0..n_layers {
            entries.push(tensor(
                &format!("text_model.encoder.layers.{layer}.mlp.fc1.weight"),
                &[1, 1],
            ));
        }
        entries
    };
    check(
        &sized(1024, 12),
        unknown,
        &["width 1024", "12 layers", "RN50x64"],
    );
    check(&sized(512, 12), unknown, &["B/32"]);
    check(&sized(1280, 36), unknown, &["ViT-e/14"]);
    check(&sized(768, 11), unknown, &["11 layers", "incomplete"]);
    check(
        &sized(768, 12),
        ErrorKind::MissingTensor,
        &["clip_l", "more"],
    );
    check(&sized(1152, 27), unknown, &["width 1152"]);
}

#[test]
fn wrong_types() {
    let set = |part: &'static str, stored: Stored| {
        move |entry: &mut Entry| {
            if entry.name.contains(part) {
                entry.stored = stored;
            }
        }
    };
    let value = ErrorKind::TensorValue;
    check_changed(
        set("layers.0.mlp.fc1.weight", Stored::I64),
        value,
        &["fc1.weight", "I64"],
    );
    check_changed(
        set("token_embedding", Stored::U8),
        value,
        &["token_embedding", "U8"],
    );
}

/// Types that candle cannot read are no obstacle where nobody reads them.
#[test]
fn odd_types_of_other_tensors_do_not_matter() {
    let mut entries = l();
    entries.push(Entry::filled(
        "model.diffusion_model.scale",
        Stored::U8,
        &[3],
        1.0,
    ));
    entries.push(Entry::filled(
        "model.diffusion_model.packed",
        Stored::F8E5m2,
        &[3],
        1.0,
    ));
    let folder = tempfile::tempdir().expect("a folder");
    let path = save_sparse(&folder.path().join("file.safetensors"), &entries);
    load(&path).expect("L beside odd types");
}

#[test]
fn quantized_encoders() {
    let with = |names: &[&str]| {
        let mut entries = l();
        entries.extend(
            names
                .iter()
                .map(|name| tensor(&format!("text_model.encoder.layers.0.{name}"), &[1])),
        );
        entries
    };
    let unsupported = ErrorKind::Unsupported;
    check(
        &with(&["mlp.fc1.weight.absmax"]),
        unsupported,
        &["bitsandbytes"],
    );
    check(&with(&["mlp.fc1.SCB"]), unsupported, &["bitsandbytes"]);
    check(&with(&["mlp.fc1.qweight"]), unsupported, &["GPTQ"]);
    check(
        &with(&["mlp.fc1.weight_scale"]),
        ErrorKind::TensorValue,
        &["weight_scale", "F16"],
    );
}

#[test]
fn unused_tensors_inside_a_root_are_reported() {
    let mut entries = l();
    entries.push(tensor(
        "text_model.encoder.layers.0.self_attn.novelty",
        &[1],
    ));
    entries.push(tensor("something.else", &[1]));
    let folder = tempfile::tempdir().expect("a folder");
    let path = save_sparse(&folder.path().join("file.safetensors"), &entries);
    let report = Checkpoint::open(&path).expect("L").report();
    assert_eq!(
        report.unused,
        ["text_model.encoder.layers.0.self_attn.novelty"]
    );
    assert_eq!(report.ignored.get("other"), Some(&1));
}
