//! Textual-inversion files: every variant, and everything that can be wrong with one.

use std::path::Path;

use sd_conditioner::weights::{Embedding, EncoderId};
use sd_conditioner::{ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::check_refused;
use crate::support::close::bits;
use crate::support::embeddings::{FILES, WIDTHS, entry, values, write};
use crate::support::entries::{Entry, Stored, save, save_sparse};

use EncoderId::{ClipL, OpenClipG, OpenClipH};

const ENCODERS: [EncoderId; 3] = [ClipL, OpenClipH, OpenClipG];

/// A file of these tensors, opened.
fn open(name: &str, entries: &[Entry]) -> Result<Embedding> {
    let folder = tempfile::tempdir().unwrap();
    Embedding::open(save(&folder.path().join(name), entries))
}

fn tensor(key: &str, shape: &[usize]) -> Entry {
    Entry::filled(key, Stored::F32, shape, 0.25)
}

/// Shapes by encoder, at the tiny widths.
fn shapes(embedding: &Embedding) -> [Option<usize>; 3] {
    let mut rows = ENCODERS.iter().zip(WIDTHS).map(|(encoder, width)| {
        let vectors = embedding.vectors(*encoder, width)?;
        assert_eq!(vectors.dims()[1], width);
        Some(vectors.dims()[0])
    });
    std::array::from_fn(|_| rows.next().unwrap())
}

/// The generator against the first bytes of the SHA-256 of what `synthetic.py` writes.
#[test]
fn the_generator_is_the_references() {
    let sums = [
        ("synth-one", "emb_params", [1, 128], "2a2ce3600df25b19"),
        ("synth-three", "emb_params", [3, 128], "1bd82c8e0bfe6097"),
        (
            "synth-concept",
            "<synth-concept>",
            [1, 128],
            "e9b1e8e5278e36ec",
        ),
        ("synth-h-two", "emb_params", [2, 192], "1c67b0c0cdc2a0df"),
        ("synth-xl-two", "clip_l", [2, 128], "07ead2977ff50db4"),
        ("synth-xl-two", "clip_g", [2, 256], "4413823b29956b74"),
    ];
    for (stem, key, shape, want) in sums {
        let sum = Sha256::digest(Stored::F32.bytes(&values(stem, key, shape)));
        let first: [u8; 8] = std::array::from_fn(|index| sum[index]);
        let sum = format!("{:016x}", u64::from_be_bytes(first));
        assert_eq!(sum, want, "{stem} {key}");
    }
}

#[test]
fn the_references_files_in_every_type() {
    for stored in [Stored::F32, Stored::F16, Stored::Bf16, Stored::F64] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), stored);
        for (stem, tensors) in FILES {
            let path = folder.path().join(format!("{stem}.safetensors"));
            let embedding = Embedding::open(&path).unwrap();
            assert_eq!(embedding.name(), stem);
            assert_eq!(embedding.n_vectors(), tensors[0].1[0]);
            assert_eq!(
                embedding.widths(),
                tensors.iter().map(|t| t.1[1]).collect::<Vec<_>>()
            );
            for (key, shape) in tensors {
                let at = WIDTHS.iter().position(|width| *width == shape[1]).unwrap();
                let found = embedding.vectors(ENCODERS[at], shape[1]).unwrap();
                assert_eq!(found.dims(), shape);
                let values = values(stem, key, *shape).into_iter();
                let want: Vec<u32> = values
                    .map(|value| stored.rounded(value).to_bits())
                    .collect();
                assert_eq!(bits(found), want, "{stem} {key} {stored:?}");
            }
            let placeholder = (stem == "synth-concept").then_some("<synth-concept>");
            assert_eq!(embedding.placeholder(), placeholder);
            assert!(embedding.notes().is_empty());
        }
    }
}

#[test]
fn variants_and_whose_vectors_they_hold() {
    let check = |entries: &[Entry], placeholder: Option<&str>, rows: [Option<usize>; 3]| {
        let embedding = open("some.style.safetensors", entries).unwrap();
        assert_eq!(embedding.name(), "some.style");
        assert_eq!(embedding.placeholder(), placeholder);
        assert_eq!(shapes(&embedding), rows, "{placeholder:?}");
    };
    check(
        &[tensor("emb_params", &[4, 256])],
        None,
        [None, None, Some(4)],
    );
    check(&[tensor("emb_params", &[128])], None, [Some(1), None, None]);
    check(
        &[tensor("<cat-toy>", &[192])],
        Some("<cat-toy>"),
        [None, Some(1), None],
    );
    check(
        &[tensor("cat", &[75, 192])],
        Some("cat"),
        [None, Some(75), None],
    );
    check(&[tensor("clip_l", &[2, 128])], None, [Some(2), None, None]);
    check(&[tensor("clip_g", &[2, 256])], None, [None, None, Some(2)]);
    check(&[tensor("clip_h", &[2, 192])], None, [None, Some(2), None]);
    let both = [
        tensor("text_encoders_0", &[2, 128]),
        tensor("text_encoders_1", &[2, 256]),
    ];
    check(&both, None, [Some(2), None, Some(2)]);
    check(
        &[tensor("text_encoders_0", &[3, 192])],
        None,
        [None, Some(3), None],
    );
}

/// A key that names an encoder counts for no other one, even if the width fits.
#[test]
fn a_named_encoder_is_the_only_one() {
    let embedding = open("x.safetensors", &[tensor("clip_l", &[2, 256])]).unwrap();
    assert!(embedding.vectors(ClipL, 256).is_some());
    assert!(embedding.vectors(OpenClipG, 256).is_none());
}

/// Members of a list are called `[0]`, `[1]`…; a placeholder in brackets is none.
#[test]
fn placeholders_in_brackets() {
    for token in ["[V]", "[my style]", "[0", "[]", "[0]x"] {
        let embedding = open("x.safetensors", &[tensor(token, &[2, 128])]).unwrap();
        assert_eq!(embedding.placeholder(), Some(token));
    }
    let two = ["[a]", "[b]"].map(|key| tensor(key, &[1, 128]));
    check(&two, &["2 placeholders"]);
}

#[test]
fn tensors_beside_the_vectors_are_noted() {
    let entries = [tensor("clip_l", &[1, 128]), tensor("t5xxl", &[1, 512])];
    let embedding = open("x.safetensors", &entries).unwrap();
    assert_eq!(
        embedding.notes(),
        ["1 other tensors of the file were not read"]
    );
}

#[test]
fn embeddings_inside_a_lora() {
    let lora = || {
        tensor(
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            &[4, 128],
        )
    };
    let one = [
        lora(),
        tensor("bundle_emb.mine.string_to_param.*", &[2, 128]),
    ];
    let embedding = open("x.safetensors", &one).unwrap();
    assert_eq!(embedding.placeholder(), Some("mine"));
    assert_eq!(shapes(&embedding), [Some(2), None, None]);
    assert_eq!(
        embedding.notes(),
        ["1 other tensors of the file were not read"]
    );
    let pair = [
        tensor("bundle_emb.mine.clip_l", &[2, 128]),
        tensor("bundle_emb.mine.clip_g", &[2, 256]),
    ];
    let embedding = open("x.safetensors", &pair).unwrap();
    assert_eq!(embedding.placeholder(), Some("mine"));
    assert_eq!(shapes(&embedding), [Some(2), None, Some(2)]);
    let several = [
        Entry::filled(
            "bundle_emb.b.string_to_param.*",
            Stored::F32,
            &[1, 128],
            2.0,
        ),
        Entry::filled(
            "bundle_emb.a.string_to_param.*",
            Stored::F32,
            &[2, 128],
            1.0,
        ),
        tensor("bundle_emb.a.clip_g", &[1, 256]),
    ];
    let embedding = open("x.safetensors", &several).unwrap();
    assert_eq!((embedding.placeholder(), embedding.n_vectors()), (None, 3));
    assert_eq!(shapes(&embedding), [Some(3), None, None]);
    let rows = embedding
        .vectors(ClipL, 128)
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    let firsts: Vec<String> = rows.iter().map(|row| row[0].to_string()).collect();
    assert_eq!(firsts, ["1", "1", "2"]);
    assert_eq!(
        embedding.notes()[0],
        "the embeddings of a bundle were joined: a, b"
    );
}

#[test]
fn widths_that_fit_no_encoder() {
    let embedding = open("x.safetensors", &[tensor("emb_params", &[2, 768])]).unwrap();
    let refused = |result: Result<()>, words: &[&str]| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Embedding);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    embedding
        .expect_any(&[(ClipL, 768), (OpenClipG, 1280)])
        .unwrap();
    let sd2 = embedding.expect_any(&[(OpenClipH, 1024)]);
    refused(sd2, &["`x`", "768", "clip_h with 1024", "another family"]);
    let g = embedding.expect_vectors(OpenClipG, 1280).map(|_| ());
    refused(g, &["768 (ViT-L", "clip_g with 1280"]);
    let rows = embedding.expect_vectors(ClipL, 768).unwrap();
    assert_eq!(rows.dims(), [2, 768]);
}

#[track_caller]
fn check(entries: &[Entry], words: &[&str]) {
    check_refused(open("x.safetensors", entries), ErrorKind::Embedding, words);
}

#[test]
fn vectors_that_cannot_be_used() {
    check(
        &[tensor("emb_params", &[0, 128])],
        &["emb_params", "[0, 128]", "no vectors"],
    );
    check(&[tensor("emb_params", &[2, 0])], &["[2, 0]", "no vectors"]);
    check(&[tensor("emb_params", &[])], &["[]", "[count, width]"]);
    check(&[tensor("cat", &[1, 2, 128])], &["cat", "[1, 2, 128]"]);
    check(&[tensor("cat", &[76, 128])], &["76 vectors", "75"]);
    for stored in [Stored::I64, Stored::I32, Stored::U8] {
        let entry = Entry::filled("cat", stored, &[1, 128], 1.0);
        check(&[entry], &["cat", stored.tag(), "cannot hold vectors"]);
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for stored in [Stored::F32, Stored::F16, Stored::Bf16] {
            let entry = Entry::new("clip_l", stored, &[1, 128], move || {
                let mut values = vec![0.5; 128];
                values[7] = bad;
                values
            });
            check(&[entry], &["clip_l", "value 7", "NaN or infinite"]);
        }
    }
}

#[test]
fn counts_and_names_that_cannot_be_used() {
    let pair = [tensor("clip_l", &[2, 128]), tensor("clip_g", &[3, 256])];
    check(&pair, &["2 vectors", "3 for the other", "equal"]);
    let twice = [
        tensor("clip_l", &[1, 128]),
        tensor("text_encoders_0", &[1, 128]),
    ];
    check(&twice, &["clip_l", "text_encoders_0", "same encoder"]);
    let several = [tensor("<a>", &[1, 128]), tensor("<b>", &[1, 128])];
    check(
        &several,
        &["2 placeholders", "`<a>`", "`<b>`", "file of its own"],
    );
    check(&[tensor("", &[1, 128])], &["placeholder", "empty"]);
    let mixed = [
        tensor("bundle_emb.a.string_to_param.*", &[1, 128]),
        tensor("bundle_emb.b.string_to_param.*", &[1, 192]),
    ];
    check(&mixed, &["width 128 and of 192"]);
    let long: Vec<Entry> = (0..3)
        .map(|one| tensor(&format!("bundle_emb.{one}.string_to_param.*"), &[30, 128]))
        .collect();
    check(&long, &["90 vectors"]);
}

#[test]
fn files_that_are_something_else() {
    let lora = tensor(
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        &[4, 128],
    );
    check(
        &[lora, tensor("lora_te_x.alpha", &[])],
        &["LoRA", "lora_te_text_model"],
    );
    let encoder: Vec<Entry> = (0..200)
        .map(|n| tensor(&format!("layer.{n}"), &[1]))
        .collect();
    check(&encoder, &["not a textual inversion", "200 tensors"]);
    let unet = [tensor("conv", &[4, 4, 3, 3]), tensor("b", &[4])];
    check(&unet, &["not a textual inversion", "2 tensors"]);
}

/// A huge tensor is refused by its header: nothing of it is read.
#[test]
fn huge_tensors_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let wide = [tensor("emb_params", &[75, 1 << 28])];
    check_refused(
        Embedding::open(save_sparse(&path, &wide)),
        ErrorKind::Embedding,
        &["no vectors"],
    );
    let long = [tensor("emb_params", &[1 << 30, 128])];
    check_refused(
        Embedding::open(save_sparse(&path, &long)),
        ErrorKind::Embedding,
        &["75"],
    );
}

#[test]
fn files_that_are_not_safetensors() {
    let check = |name: &str, bytes: &[u8], kind: ErrorKind, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        check_refused(Embedding::open(&path), kind, words);
    };
    let (broken, not_here) = (ErrorKind::FileFormat, ErrorKind::Unsupported);
    check(
        "x.pt",
        b"PK\x03\x04 archive/data.pkl PK\x05\x06",
        broken,
        &["x.pt", "damaged"],
    );
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e.";
    check("x.bin", legacy, broken, &["the pickle at byte 16"]);
    check(
        "x.png",
        b"\x89PNG\r\n\x1a\n00000000",
        not_here,
        &["picture", ".safetensors"],
    );
    check(
        "x.safetensors",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        not_here,
        &["picture"],
    );
    check("x.safetensors", b"", broken, &["empty"]);
    check("x.safetensors", b"<!DOCTYPE html>", broken, &["HTML"]);
    let cut = [&200_u64.to_le_bytes()[..], b"{\"emb_params\":"].concat();
    check("x.safetensors", &cut, broken, &["incomplete download"]);
    check("x.safetensors", &[0; 64], broken, &["zeros"]);
}

#[test]
fn paths_that_are_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Embedding::open(folder.path().join("x.safetensors"));
    check_refused(missing, ErrorKind::Io, &["x.safetensors"]);
    check_refused(
        Embedding::open(folder.path()),
        ErrorKind::FileFormat,
        &["not a file"],
    );
    check_refused(Embedding::open(Path::new("")), ErrorKind::Io, &[]);
}

/// Cut or changed anywhere, a file gives an error or an embedding, and never a panic.
#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let entries = [entry("synth-one", "emb_params", [1, 128], Stored::F16)];
    let whole = std::fs::read(save(&path, &entries)).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(Embedding::open(&path).is_err(), "cut at {at}");
    }
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            let _ = Embedding::open(&path);
        }
    }
}
