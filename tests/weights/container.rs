//! Files that are not what their name says, or not whole.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::{Checkpoint, EncoderId};

use super::{check_refused, load};
use crate::support::checkpoints::{Projection, huggingface, source};
use crate::support::entries::{Entry, Stored, header, save_sparse};

/// Writes bytes under a name that promises weights, and expects a refusal.
#[track_caller]
fn check(bytes: &[u8], kind: ErrorKind, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).expect("a writable file");
    check_refused(load(&path), kind, words);
}

/// A header as text, with data of some length.
fn file(header: &str, n_data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(std::iter::repeat_n(1, n_data));
    bytes
}

#[test]
fn not_weights_at_all() {
    let broken = ErrorKind::FileFormat;
    check(b"", broken, &["empty"]);
    check(&[0; 4096], broken, &["zeros"]);
    check(b"1234567", broken, &["7 bytes"]);
    check(b"<!DOCTYPE html><html></html>", broken, &["HTML", "login"]);
    check(b"<?xml version=\"1.0\"?><Error/>", broken, &["XML"]);
    check(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        broken,
        &["Git LFS", "git lfs pull"],
    );
    check(b"{\"error\": \"Entry not found\"}", broken, &["JSON"]);
    check(b"\x89PNG\r\n\x1a\n0000000000", broken, &["image"]);
    check(b"RIFF\x10\0\0\0WEBPVP8 ", broken, &["image"]);
    check(b"\xff\xd8\xff\xe0\0\x10JFIF", broken, &["image"]);
    check(b"\x93NUMPY\x01\0v\0{'descr'", broken, &["NumPy"]);
    check(b"\x08\x07\x12\x04onnx........", broken, &["ONNX"]);
    check(b"\x1f\x8b\x08\0\0\0\0\0\0\0", broken, &["gzip"]);
    check(b"7z\xbc\xaf\x27\x1c\0\0\0\0", broken, &["7z"]);
    check(
        b"random text, long enough to be looked at",
        broken,
        &["no known weight format"],
    );
}

/// Names are a file's own: none may move a terminal's cursor, or fill it.
#[test]
fn names_that_are_no_fit_sight() {
    let name = format!("\\u001b[2J\\n{}", "n".repeat(100_000));
    let header =
        format!(r#"{{"{name}": {{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}}}"#);
    for header in [header.replace("[2]", "[1]"), header] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, file(&header, 4)).expect("a writable file");
        let Err(error) = load(&path) else {
            panic!("accepted")
        };
        let text = error.to_string();
        assert!(text.contains(r"`\u{1b}[2J\nnnn"), "{text}");
        assert!(text.chars().all(|one| !one.is_control()), "{text}");
        assert!(text.len() < 1000, "{}", text.len());
    }
}

/// Lengths of headers that begin as a pickle, a gzip archive or a protocol buffer does.
#[test]
fn lengths_that_look_like_other_formats() {
    let lengths = [0x280, 0x380, 0x480, 0x580, 0x8b1f, 0x308];
    for length in lengths {
        let start = r#"{"__metadata__": {"onnx": ""}, "w": {"dtype": "F32", "#;
        let start = format!(r#"{start}"shape": [1], "data_offsets": [0, 4]}}}}"#);
        let header = format!("{start:<length$}");
        check(
            &file(&header, 4),
            ErrorKind::UnknownLayout,
            &["no text encoder"],
        );
        // Cut, it is still safetensors.
        check(
            &file(&header, 4)[..300],
            ErrorKind::FileFormat,
            &["incomplete download"],
        );
    }
}

#[test]
fn pickles_and_other_archives() {
    let not_here = ErrorKind::Unsupported;
    let fake = |name: &str| {
        [
            b"PK\x03\x04\x14\0\0\0".as_slice(),
            &[0; 18],
            name.as_bytes(),
            b"PK\x05\x06",
        ]
        .concat()
    };
    check(
        &fake("archive/data.pkl"),
        ErrorKind::FileFormat,
        &["PyTorch", "damaged", "incomplete download"],
    );
    check(&fake("arr_0.npy"), ErrorKind::FileFormat, &["npz"]);
    check(&fake("model.onnx"), ErrorKind::FileFormat, &["ONNX"]);
    check(&fake("holiday.txt"), ErrorKind::FileFormat, &["plain zip"]);
    check(
        b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94.",
        not_here,
        &["Python pickle"],
    );
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    check(&tar, not_here, &["tar"]);
}

#[test]
fn broken_headers() {
    let broken = ErrorKind::FileFormat;
    check(&file("{\"__metadata__\":null}", 0), broken, &["no tensor"]);
    check(
        &file("{\"__metadata__\":{\"format\":\"pt\"}}", 0),
        broken,
        &["no tensor"],
    );
    check(
        &file("{\"a\":12}        ", 0),
        broken,
        &["header cannot be read", "`a`"],
    );
    check(
        &file("{\"a\":{\"dtype\":", 0),
        broken,
        &["header cannot be read"],
    );
    check(
        &file("{\"__metadata__\":{\"format\":1}}", 0),
        broken,
        &["__metadata__", "string"],
    );
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    check(&file(&deep, 0), broken, &["header cannot be read"]);
    let nested = format!(
        "{{\"a\":{{\"x\":{}1{}}}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    check(&file(&nested, 0), broken, &["`a`", "dtype"]);
    let mut latin = file("{\"a\":12}", 0);
    latin[10] = 0xe4;
    check(&latin, broken, &["UTF-8"]);
}

/// A header with one tensor of these fields, and 16 bytes of data.
fn tensor(fields: &str) -> Vec<u8> {
    file(&format!("{{\"a\":{{{fields}}}}}"), 16)
}

#[test]
fn broken_tensors() {
    let broken = ErrorKind::FileFormat;
    check(
        &tensor("\"dtype\":\"F33\",\"shape\":[4],\"data_offsets\":[0,16]"),
        broken,
        &["`a`", "F33"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]"),
        broken,
        &["`a`", "-4"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[4.5],\"data_offsets\":[0,16]"),
        broken,
        &["`a`", "4.5"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]"),
        broken,
        &["`a`", "12 bytes", "16"],
    );
    let huge = "\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,16]";
    check(&tensor(huge), broken, &["`a`", "overflow"]);
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]"),
        broken,
        &["`a`"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]"),
        broken,
        &["`a`", "nobody's"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]"),
        broken,
        &["incomplete download"],
    );
    check(
        &tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"),
        broken,
        &["trailing bytes"],
    );
}

#[test]
fn tensors_that_collide() {
    let a = "\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]";
    let b = "\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]";
    check(
        &file(&format!("{{\"a\":{{{a}}},\"b\":{{{b}}}}}"), 24),
        ErrorKind::FileFormat,
        &["`b`", "overlap"],
    );
    check(
        &file(&format!("{{\"a\":{{{a}}},\"a\":{{{a}}}}}"), 16),
        ErrorKind::FileFormat,
        &["`a`", "twice"],
    );
}

#[test]
fn header_lengths() {
    let mut long = 200_000_000_u64.to_le_bytes().to_vec();
    long.extend_from_slice(b"{\"a\":1}");
    check(&long, ErrorKind::FileFormat, &["200000000"]);
    let mut short = 5_000_u64.to_le_bytes().to_vec();
    short.extend_from_slice(b"{\"a\":{");
    check(
        &short,
        ErrorKind::FileFormat,
        &["within its header", "expected 5008 bytes, found 14"],
    );
    check(
        &[8, 0, 0, 0, 0, 0, 0, 0],
        ErrorKind::FileFormat,
        &["incomplete"],
    );
}

#[test]
fn paths_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing.safetensors");
    check_refused(load(&missing), ErrorKind::Io, &["missing.safetensors"]);
    check_refused(
        load(folder.path()),
        ErrorKind::UnknownLayout,
        &["model_index.json"],
    );
    #[cfg(unix)]
    {
        let ring = folder.path().join("ring.safetensors");
        std::os::unix::fs::symlink(&ring, &ring).expect("a link");
        check_refused(load(&ring), ErrorKind::Io, &["ring.safetensors"]);
    }
}

/// Cut anywhere, a file is refused and the numbers are told.
#[test]
fn truncated_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let entries = huggingface(
        &source(EncoderId::ClipL, 1),
        "",
        "text_model.",
        Projection::None,
        Stored::F16,
    );
    let path = save_sparse(&folder.path().join("whole.safetensors"), &entries);
    load(&path).expect("a whole file");
    let length = std::fs::metadata(&path).expect("there").len();
    let file = File::options().write(true).open(&path).expect("writable");
    for cut in [length - 1, length / 2, 4000, 9] {
        file.set_len(cut).expect("cut");
        check_refused(
            load(&path),
            ErrorKind::FileFormat,
            &["incomplete download", &cut.to_string()],
        );
    }
}

/// With any byte of its header changed, a file gives an error or a checkpoint, and never a panic.
#[test]
fn damaged_headers_never_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let entries = huggingface(
        &source(EncoderId::ClipL, 1),
        "",
        "text_model.",
        Projection::None,
        Stored::F16,
    );
    let path = save_sparse(&folder.path().join("file.safetensors"), &entries);
    let (_, whole) = header(&entries);
    let mut file = File::options().write(true).open(&path).expect("writable");
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x80, 0x10][at / 3 % 3];
        file.seek(SeekFrom::Start(0)).expect("a start");
        file.write_all(&bytes).expect("space");
        let _ = load(&path);
    }
}

/// Of a checkpoint with 7 GB, only the header is read.
#[test]
fn inspecting_a_large_file_is_fast() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("large.safetensors");
    let root = "cond_stage_model.transformer.";
    let mut entries = huggingface(
        &source(EncoderId::ClipL, 1),
        root,
        "text_model.",
        Projection::None,
        Stored::F16,
    );
    for block in 0..1000 {
        let name = format!("model.diffusion_model.input_blocks.{block}.0.weight");
        entries.push(Entry::filled(&name, Stored::F16, &[1750, 2000], 0.0));
    }
    let (order, header) = header(&entries);
    let n_bytes: usize = order
        .iter()
        .map(|entry| entry.shape.iter().product::<usize>() * 2)
        .sum();
    let mut file = File::create(&path).expect("a writable file");
    file.write_all(&header).expect("space");
    file.set_len((header.len() + n_bytes) as u64)
        .expect("a sparse file");
    assert!(n_bytes > 7_000_000_000);
    // The fastest of some, for other programs have the machine, too.
    let times = (0..5).map(|_| {
        let start = Instant::now();
        let summary = Checkpoint::open(&path).expect("SD 1.x").summary();
        let took = start.elapsed();
        assert_eq!((summary.n_tensors, summary.encoders.len()), (1000 + 52, 1));
        took
    });
    let took = times.min().expect("five times");
    assert!(took < Duration::from_millis(500), "{took:?}");
}
