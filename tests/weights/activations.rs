//! The activation that a folder's configuration names, which no tensor tells.

use std::path::Path;

use sd_conditioner::kernels::Activation;
use sd_conditioner::weights::{Checkpoint, EncoderId};
use sd_conditioner::{Conditioner, ErrorKind};
use serde_json::{Value, json};

use super::{check_refused, load};
use crate::support::checkpoints::{config, save_text, text_encoder};
use crate::support::close::bits;
use crate::support::entries::Stored;

use EncoderId::{ClipL, OpenClipG};

/// A folder of one encoder with this configuration.
fn write(folder: &Path, encoder: EncoderId, config: &Value) {
    text_encoder(folder, encoder, Stored::F32, 73);
    save_text(&folder.join("config.json"), &config.to_string());
}

fn naming(encoder: EncoderId, act: Value) -> Value {
    let mut config = config(encoder);
    config["hidden_act"] = act;
    config
}

fn without(mut config: Value) -> Value {
    config.as_object_mut().unwrap().remove("hidden_act");
    config
}

/// What the folder's encoder is given, and the notes about it.
fn opened(encoder: EncoderId, config: &Value) -> (Conditioner, Activation, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), encoder, config);
    let text = Conditioner::open(folder.path()).unwrap();
    let activation = text.encoders().next().unwrap().config().activation;
    let notes = text.report().notes.iter();
    let notes = notes.filter(|note| note.contains("activation")).cloned();
    (text.clone(), activation, notes.collect())
}

#[test]
fn activations_by_name() {
    let check = |encoder, config: Value, want, noted: Option<&str>| {
        let (_, activation, notes) = opened(encoder, &config);
        assert_eq!(activation, want, "{config}");
        assert_eq!(notes.len(), usize::from(noted.is_some()), "{notes:?}");
        assert!(
            noted.is_none_or(|word| notes[0].contains(word)),
            "{notes:?}"
        );
    };
    let (quick, erf, tanh) = (
        Activation::QuickGelu,
        Activation::GeluErf,
        Activation::GeluTanh,
    );
    check(ClipL, naming(ClipL, "quick_gelu".into()), quick, None);
    check(
        ClipL,
        naming(ClipL, "gelu".into()),
        erf,
        Some("`gelu`, which is used"),
    );
    check(
        ClipL,
        naming(ClipL, "gelu_new".into()),
        tanh,
        Some("`gelu_new`"),
    );
    check(
        ClipL,
        naming(ClipL, "gelu_pytorch_tanh".into()),
        tanh,
        Some("tanh"),
    );
    check(OpenClipG, naming(OpenClipG, "gelu".into()), erf, None);
    check(
        OpenClipG,
        naming(OpenClipG, "quick_gelu".into()),
        quick,
        Some("usual is `gelu`"),
    );
    check(ClipL, without(config(ClipL)), quick, None);
    check(
        OpenClipG,
        without(config(OpenClipG)),
        quick,
        Some("`quick_gelu`"),
    );
    let nested =
        json!({"model_type": "clip", "hidden_act": "gelu_new", "text_config": config(ClipL)});
    check(ClipL, nested, quick, None);
}

/// The pictures differ: each activation gives other numbers.
#[test]
fn activations_change_what_comes_out() {
    let context = |act: &str| {
        let (text, ..) = opened(ClipL, &naming(ClipL, act.into()));
        bits(text.encode("a lighthouse at dusk").unwrap().context())
    };
    let all = ["quick_gelu", "gelu", "gelu_new"].map(context);
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn unknown_activations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for act in ["relu", "", "GELU"] {
        write(folder.path(), ClipL, &naming(ClipL, act.into()));
        let words = ["config.json", "hidden_act", "quick_gelu, gelu"];
        check_refused(load(folder.path()), ErrorKind::Unsupported, &words);
    }
    write(folder.path(), ClipL, &naming(ClipL, 7.into()));
    check_refused(load(folder.path()), ErrorKind::FileFormat, &["config.json"]);
}

/// A file alone says nothing, and the encoder's own is taken.
#[test]
fn a_file_names_none() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ClipL, &naming(ClipL, "gelu".into()));
    let path = folder.path().join("model.safetensors");
    assert_eq!(Checkpoint::open(&path).unwrap().hidden_act(ClipL), None);
    let text = Conditioner::open(&path).unwrap();
    let activation = text.encoders().next().unwrap().config().activation;
    assert_eq!(activation, Activation::QuickGelu);
}
