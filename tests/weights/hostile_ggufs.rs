//! GGUF files that are broken or lie: an error each that says what.

use sd_conditioner::ErrorKind::{self, FileFormat, UnknownLayout, Unsupported};

use super::{check_refused, load};
use crate::support::entries::{Entry, Stored};
use crate::support::ggufs::{Line, file, line, pair, plain, start, text};

#[track_caller]
fn check(bytes: &[u8], kind: ErrorKind, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    check_refused(load(&path), kind, words);
}

fn good() -> Line {
    plain(&Entry::filled("w", Stored::F32, &[2, 32], 0.5))
}

/// A file of version 3 with these pairs, one line, and some data.
fn with(pairs: &[Vec<u8>], one: &[u8]) -> Vec<u8> {
    let mut bytes = start(3, 1, pairs.len() as u64);
    bytes.extend(pairs.concat());
    bytes.extend(one);
    bytes.resize(bytes.len().next_multiple_of(32) + 256, 1);
    bytes
}

#[test]
fn the_good_one_is_read() {
    check(&file(&[good()]), UnknownLayout, &["no text encoder", "`w`"]);
    check(
        &with(&[], &line("w", &[2, 32], 0, 0)),
        UnknownLayout,
        &["`w`"],
    );
}

#[test]
fn versions_and_counts() {
    let versioned = |version: u32| [start(version, 1, 0), vec![0; 64]].concat();
    check(&versioned(0), Unsupported, &["version 0"]);
    check(&versioned(4), Unsupported, &["version 4"]);
    check(&versioned(3_u32.swap_bytes()), Unsupported, &["big-endian"]);
    check(
        &start(3, u64::MAX, 0),
        FileFormat,
        &["18446744073709551615 tensors"],
    );
    check(
        &start(3, 1, 1 << 40),
        FileFormat,
        &["pairs of metadata are announced"],
    );
    check(
        &[start(3, 0, 0), vec![0; 64]].concat(),
        FileFormat,
        &["no tensor"],
    );
    check(b"GGUF", FileFormat, &["incomplete download"]);
    check(&start(3, 1, 0)[..20], FileFormat, &["incomplete download"]);
}

#[test]
fn metadata() {
    let one = line("w", &[2, 32], 0, 0);
    let alignment = |value: u32| pair("general.alignment", 4, &value.to_le_bytes());
    for wrong in [0, 3, 48, 1 << 30] {
        check(
            &with(&[alignment(wrong)], &one),
            FileFormat,
            &["general.alignment", "power of two"],
        );
    }
    let negative = pair("general.alignment", 5, &(-32_i32).to_le_bytes());
    check(&with(&[negative], &one), FileFormat, &["below zero"]);
    let words = pair("general.alignment", 8, &text("32"));
    check(&with(&[words], &one), FileFormat, &["not a whole number"]);
    check(
        &with(&[pair("x", 77, &[])], &one),
        FileFormat,
        &["unknown type 77"],
    );
    let long = pair("x", 8, &u64::MAX.to_le_bytes());
    check(&with(&[long], &one), FileFormat, &["are announced"]);
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    check(
        &with(&[pair("x", 9, &list(10, u64::MAX))], &one),
        FileFormat,
        &["are announced"],
    );
    check(
        &with(&[pair("x", 9, &list(8, u64::MAX))], &one),
        FileFormat,
        &["announced"],
    );
    let nested = (0..8).flat_map(|_| list(9, 1)).collect::<Vec<_>>();
    check(
        &with(&[pair("x", 9, &nested)], &one),
        FileFormat,
        &["nested deeper"],
    );
    check(
        &with(&[[&[1, 0, 0, 0, 0, 0, 0, 0], &b"\xff"[..]].concat()], &one),
        FileFormat,
        &["UTF-8"],
    );
    let shape = [
        list(5, 2),
        5_u32.to_le_bytes().to_vec(),
        5_u32.to_le_bytes().to_vec(),
    ]
    .concat();
    let changed = pair("comfy.gguf.orig_shape.w", 9, &shape);
    check(
        &with(&[changed], &one),
        FileFormat,
        &["`w`", "[5, 5]", "[2, 32]"],
    );
    let many = pair("comfy.gguf.orig_shape.w", 9, &list(5, 1 << 50));
    check(&with(&[many], &one), FileFormat, &["dimensions"]);
}

#[test]
fn lines() {
    let check = |one: &[u8], words: &[&str]| check(&with(&[], one), FileFormat, words);
    check(
        &u64::MAX.to_le_bytes(),
        &["a name of 18446744073709551615 bytes"],
    );
    check(&line("w", &[1; 5], 0, 0), &["`w`", "5 dimensions"]);
    check(&line("w", &[1 << 62, 1 << 62], 0, 0), &["`w`", "overflows"]);
    check(&line("w", &[1 << 60, 32], 2, 0), &["`w`", "overflows"]);
    check(
        &line("w", &[1 << 62, 1 << 62], 99, 0),
        &["`w`", "overflows"],
    );
    check(
        &line("w", &[2, 32], 0, u64::MAX - 31),
        &["`w`", "overflows"],
    );
    check(
        &line("w", &[2, 32], 0, 1 << 20),
        &["`w`", "its data end at byte", "incomplete"],
    );
    check(
        &line("w", &[2, 3200], 0, 0),
        &["`w`", "its data end at byte"],
    );
    check(&line("w", &[2, 32], 0, 8), &["`w`", "offset 8", "32"]);
    check(
        &line("w", &[32, 2], 2, 0),
        &["`w`", "rows of 2 values", "Q4_0", "32"],
    );
    check(
        &line("w", &[2, 32], 12, 0),
        &["`w`", "rows of 32 values", "Q4_K", "256"],
    );
}

#[test]
fn tensors_that_collide() {
    let twice = file(&[good(), good()]);
    check(&twice, FileFormat, &["`w`", "twice"]);
    let mut shared = start(3, 2, 0);
    shared.extend(line("a", &[2, 32], 0, 0));
    shared.extend(line("b", &[2, 32], 0, 32));
    shared.resize(shared.len().next_multiple_of(32) + 512, 1);
    check(&shared, FileFormat, &["`b`", "overlap those of `a`"]);
}

/// Cut or changed anywhere, a file gives an error or tensors, and never a panic.
#[test]
fn damage_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let whole = file(&[good(), plain(&Entry::filled("v", Stored::F16, &[4], 1.0))]);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            let _ = load(&path);
        }
        std::fs::write(&path, &whole[..at]).unwrap();
        check_refused(load(&path), load(&path).err().unwrap().kind(), &[]);
    }
}
