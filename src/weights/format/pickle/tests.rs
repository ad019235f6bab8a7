//! Files that `PyTorch` wrote (`tests/golden/weights/make_pickles.py`), and hostile ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::Archive;
use crate::weights::format::decode;

#[derive(Deserialize)]
struct Expected {
    stored: String,
    shape: Vec<usize>,
    sha256: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights")
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn files_that_torch_wrote() {
    let text = std::fs::read_to_string(folder().join("tensors.json")).unwrap();
    let files: BTreeMap<String, BTreeMap<String, Expected>> = serde_json::from_str(&text).unwrap();
    let mut n_tensors = 0;
    for (file, tensors) in files.iter().filter(|(file, _)| !file.starts_with("not_")) {
        let archive = Archive::open(&folder().join(file)).unwrap();
        let names: Vec<_> = archive.entries.keys().collect();
        assert_eq!(names, tensors.keys().collect::<Vec<_>>(), "{file}");
        for (name, expected) in tensors {
            let entry = &archive.entries[name];
            assert_eq!(entry.stored.to_string(), expected.stored, "{file} {name}");
            assert_eq!(entry.shape, expected.shape, "{file} {name}");
            let bytes = archive.read_all(entry).unwrap();
            let values = decode::numbers(&bytes, entry.stored).unwrap();
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            let sum = Sha256::digest(&bytes);
            assert_eq!(*sum, hex(&expected.sha256), "{file} {name}");
            n_tensors += 1;
        }
    }
    assert_eq!(n_tensors, 98);
}

/// Parts of a strided tensor are the same bytes as those of all.
#[test]
fn parts_of_views() {
    let archive = Archive::open(&folder().join("flat.zip.pt")).unwrap();
    for name in ["transposed", "columns", "expanded", "permuted", "plain"] {
        let entry = &archive.entries[name];
        let all = archive.read_all(entry).unwrap();
        for (start, end) in [(0, 4), (4, 12), (6, 11), (entry.n_bytes - 3, entry.n_bytes)] {
            let part = archive.read(entry, start..end).unwrap();
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            assert_eq!(part, all[range], "{name} {start}..{end}");
        }
    }
}

#[track_caller]
fn check(result: Result<Archive>, kind: ErrorKind, words: &[&str]) {
    let error: Error = result.expect_err("a refusal");
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(error.path().is_some(), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn files_without_weights() {
    let open = |file: &str| Archive::open(&folder().join(file));
    let whole = open("not_a_state.pt");
    check(
        whole,
        ErrorKind::Unsupported,
        &["whole pickled model", "Linear", "state_dict()"],
    );
    check(
        open("not_tensors.pt"),
        ErrorKind::FileFormat,
        &["no tensor"],
    );
}

/// Cut or changed anywhere, a file gives an error or tensors, and never a panic.
#[test]
fn damage_never_panics() {
    let folder_of_ours = tempfile::tempdir().unwrap();
    let path = folder_of_ours.path().join("x.pt");
    for file in DAMAGED {
        let whole = std::fs::read(folder().join(file)).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= [0x01, 0x80, 0x20, 0xff][at % 4];
            std::fs::write(&path, &bytes).unwrap();
            read_what_can_be(&path);
        }
        for at in (0..whole.len()).step_by(11) {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Archive::open(&path).is_err(), "{file} cut at {at}");
        }
    }
}

const DAMAGED: [&str; 4] = [
    "flat.zip.pt",
    "flat.legacy.pt",
    "lightning.legacy.pt",
    "flat.protocol4.pt",
];

fn read_what_can_be(path: &Path) {
    if let Ok(archive) = Archive::open(path) {
        for entry in archive.entries.values() {
            let bytes = archive.read_all(entry);
            let _ = bytes.map(|bytes| decode::numbers(&bytes, entry.stored));
        }
    }
}
