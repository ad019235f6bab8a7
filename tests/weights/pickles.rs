//! Pickled embeddings of every wrapping, sharded pickles, and what is told of them.

use std::path::Path;

use sd_conditioner::weights::{Checkpoint, Container, Embedding, EncoderId};
use sd_conditioner::{ErrorKind, Family, Result};

use super::check_refused;
use super::layouts::check_equal;
use crate::support::checkpoints::{
    self, Projection, config, diffusers_source, huggingface, open_clip, source,
};
use crate::support::close::bits;
use crate::support::embeddings::{PICKLED, WIDTHS, a1111, pickled, values};
use crate::support::entries::{Entry, Stored, save};
use crate::support::pickles::{
    Object, dict, legacy, repickle, save_legacy, save_zip, state, text, view,
};

use EncoderId::{ClipL, OpenClipG};

fn golden(file: &str) -> Result<Embedding> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights");
    Embedding::open(folder.join(file))
}

/// Files of torch itself: how many vectors L and G have, and the placeholder.
#[test]
fn embeddings_that_torch_wrote() {
    let check = |file: &str, rows: [Option<usize>; 2], placeholder: Option<&str>| {
        let embedding = golden(file).unwrap();
        let count = |encoder, width| {
            let vectors = embedding.vectors(encoder, width);
            vectors.map(|vectors| vectors.dims()[0])
        };
        assert_eq!([count(ClipL, 768), count(OpenClipG, 1280)], rows, "{file}");
        assert_eq!(embedding.placeholder(), placeholder, "{file}");
        assert!(
            embedding.notes().is_empty(),
            "{file}: {:?}",
            embedding.notes()
        );
        embedding
    };
    let first = check("t1.zip.pt", [Some(2), None], None);
    for same in [
        "t1.legacy.pt",
        "t1.parameter.pt",
        "t1.dict.pt",
        "t1.dict.legacy.pt",
        "t6.zip.pt",
    ] {
        let other = check(same, [Some(2), None], None);
        let [one, two] = [&first, &other].map(|file| bits(file.vectors(ClipL, 768).unwrap()));
        assert_eq!(one, two, "{same}");
    }
    check("t3.zip.bin", [Some(1), None], Some("<cat-toy>"));
    check("t3.legacy.bin", [Some(1), None], Some("<cat-toy>"));
    check("t5.pti", [Some(2), Some(2)], None);
    // A list of dictionaries: one row and two of L, three of G beside the first.
    check("t7.zip.pt", [Some(3), Some(3)], None);
}

#[test]
fn embeddings_of_our_own() {
    let folder = tempfile::tempdir().unwrap();
    for (stored, save) in [
        (Stored::F32, save_zip as fn(&Path, &Object) -> _),
        (Stored::F16, save_legacy),
    ] {
        let path = save(&folder.path().join("old.pt"), &pickled(stored));
        let embedding = Embedding::open(&path).unwrap();
        let values = values(PICKLED, "*", [2, WIDTHS[0]]).into_iter();
        let want: Vec<u32> = values
            .map(|value| stored.rounded(value).to_bits())
            .collect();
        assert_eq!(bits(embedding.vectors(ClipL, WIDTHS[0]).unwrap()), want);
        assert_eq!((embedding.name(), embedding.n_vectors()), ("old", 2));
    }
}

#[test]
fn embeddings_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    let check = |object: &Object, words: &[&str]| {
        for save in [save_zip, save_legacy] {
            let opened = Embedding::open(save(&path, object));
            check_refused(opened, ErrorKind::Embedding, words);
        }
    };
    let tensor = |key: usize, shape: &[usize]| {
        Object::Tensor(view(key, &Entry::filled("", Stored::F32, shape, 0.5)))
    };
    let two = dict([("a", tensor(0, &[1, 128])), ("b", tensor(1, &[1, 128]))]);
    check(
        &dict([("string_to_param", two.clone())]),
        &["2 placeholders"],
    );
    check(&two, &["2 placeholders", "`a`", "`b`"]);
    check(&a1111(tensor(0, &[0, 128])), &["no vectors"]);
    check(&a1111(tensor(0, &[76, 128])), &["76 vectors"]);
    check(&a1111(tensor(0, &[1, 1, 128])), &["[count, width]"]);
    let ids = Entry::filled("", Stored::I64, &[1, 128], 1.0);
    check(
        &a1111(Object::Tensor(view(0, &ids))),
        &["I64", "cannot hold vectors"],
    );
    let bad = Entry::filled("", Stored::F16, &[1, 128], f32::NAN);
    check(&a1111(Object::Tensor(view(0, &bad))), &["NaN or infinite"]);
}

/// Lightning's checkpoint with everything that stands beside the weights.
#[test]
fn a_checkpoint_inside_a_training_state() {
    let folder = tempfile::tempdir().unwrap();
    let root = "cond_stage_model.transformer.";
    let source = source(ClipL, 73).without_projection();
    let entries = huggingface(&source, root, "text_model.", Projection::None, Stored::F16);
    let class = || {
        Object::Global(
            "pytorch_lightning.callbacks.model_checkpoint",
            "ModelCheckpoint",
        )
    };
    let callbacks = Object::Dict(vec![(class(), Object::Call(class().into(), Vec::new()))]);
    let object = dict([
        ("epoch", Object::Int(3)),
        ("callbacks", callbacks),
        ("optimizer_states", Object::List(vec![Object::None])),
        // A tensor beside the weights is no weight.
        (
            "global_step",
            Object::Tensor(view(9000, &Entry::filled("", Stored::I64, &[], 3.0))),
        ),
        ("state_dict", state(&entries)),
    ]);
    let checkpoint = Checkpoint::open(save_zip(&folder.path().join("m.ckpt"), &object)).unwrap();
    assert_eq!(checkpoint.family(), Some(Family::Sd1));
    assert_eq!(checkpoint.container(), Container::PyTorch);
    check_equal(&*checkpoint.encoder(ClipL).unwrap(), &source, Stored::F16);
    let notes = checkpoint.report().notes;
    assert!(
        notes.contains(&"the weights are under `state_dict`".to_owned()),
        "{notes:?}"
    );
}

/// `open_clip`'s training files, where every name begins with `module.`; and a transposed matrix.
#[test]
fn open_clip_with_a_transposed_projection() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(OpenClipG, 73);
    let entries = open_clip(&source, "module.", Projection::Bare, Stored::F32);
    let Object::Dict(mut items) = state(&entries) else {
        unreachable!("a dictionary")
    };
    let values = source.values("projection").unwrap();
    for (key, value) in &mut items {
        let (Object::Text(name), Object::Tensor(view)) = (&*key, value) else {
            unreachable!("names and tensors")
        };
        if name == "module.text_projection" {
            // Stored as `[out, in]`, seen as `[in, out]`.
            view.bytes = Stored::F32.bytes(&values);
            view.strides = vec![1, 256];
        }
    }
    let object = dict([
        ("epoch", Object::Int(1)),
        ("name", text("x")),
        ("state_dict", Object::Dict(items)),
    ]);
    let checkpoint = Checkpoint::open(save_legacy(&folder.path().join("g.pt"), &object)).unwrap();
    check_equal(
        &*checkpoint.encoder(OpenClipG).unwrap(),
        &source,
        Stored::F32,
    );
}

#[test]
fn shards_that_are_pickles() {
    let folder = tempfile::tempdir().unwrap();
    let source = diffusers_source(ClipL, 73);
    let entries = huggingface(&source, "", "text_model.", Projection::None, Stored::F16);
    let mut map = serde_json::Map::new();
    for (index, part) in entries.chunks(entries.len() / 2 + 1).enumerate() {
        let name = format!("pytorch_model-0000{}-of-00002.bin", index + 1);
        let plain = save(&folder.path().join("part.safetensors"), part);
        repickle(&plain, &folder.path().join(&name), save_zip);
        for entry in part {
            map.insert(entry.name.clone(), name.clone().into());
        }
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    checkpoints::save_text(&folder.path().join("pytorch_model.bin.index.json"), &index);
    checkpoints::save_text(
        &folder.path().join("config.json"),
        &config(ClipL).to_string(),
    );
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    check_equal(&*checkpoint.encoder(ClipL).unwrap(), &source, Stored::F16);
}

/// Where both are there, safetensors are taken.
#[test]
fn safetensors_go_before_pickles() {
    let folder = tempfile::tempdir().unwrap();
    checkpoints::text_encoder(folder.path(), ClipL, Stored::F16, 73);
    checkpoints::save_text(&folder.path().join("pytorch_model.bin"), "nonsense");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let notes = checkpoint.report().notes.join("\n");
    assert!(notes.contains("`model.safetensors` was taken"), "{notes}");
}

/// What no one reads may be of a type that no one knows, if its length is known.
#[test]
fn storages_of_types_that_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.ckpt");
    let source = source(ClipL, 73).without_projection();
    let mut entries = vec![Entry::filled("quantized", Stored::U8, &[3], 1.0)];
    entries.extend(huggingface(
        &source,
        "",
        "text_model.",
        Projection::None,
        Stored::F16,
    ));
    let bytes = legacy(&state(&entries));
    let written = |name: &[u8]| {
        let known = b"torch\nByteStorage\n";
        let at = bytes
            .windows(known.len())
            .position(|part| part == known)
            .unwrap();
        let rest = &bytes[at + known.len()..];
        std::fs::write(&path, [&bytes[..at], name, rest].concat()).unwrap();
        Checkpoint::open(&path)
    };
    let checkpoint = written(b"torch\nQUInt8Storage\n").unwrap();
    check_equal(&*checkpoint.encoder(ClipL).unwrap(), &source, Stored::F16);
    let error = written(b"torch\nOddStorage\n").unwrap_err().to_string();
    assert!(error.contains("`torch.OddStorage`"), "{error}");
}
