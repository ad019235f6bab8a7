//! Tokenizer folders of a pipeline: CLIP's, spelt in any of its ways, or an error.

use std::path::Path;

use sd_conditioner::tokens::Tokenizer;
use sd_conditioner::weights::Checkpoint;
use sd_conditioner::{ErrorKind, Family};

use super::{check_refused, load};
use crate::support::checkpoints::{Layout, save_text, write};
use crate::support::entries::Stored;

/// CLIP's merges, header included.
const MERGES: &str = include_str!("../../src/tokens/vocabulary/merges.txt");

/// CLIP's `vocab.json`.
fn vocabulary() -> String {
    let pieces = (0..49408).map(|id| Tokenizer::clip().piece(id).unwrap());
    let entries = pieces.enumerate().map(|(id, piece)| {
        let piece = serde_json::to_string(piece).unwrap();
        format!("{piece}: {id}")
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

/// A pipeline with this tokenizer; `None` leaves a file out.
fn pipeline(folder: &Path, merges: Option<&str>, vocabulary: Option<&str>) {
    write(folder, Family::Sd1, Layout::Diffusers, Stored::F16, 1);
    for (name, text) in [("merges.txt", merges), ("vocab.json", vocabulary)] {
        if let Some(text) = text {
            save_text(&folder.join("tokenizer").join(name), text);
        }
    }
}

#[test]
fn clips_own_in_every_spelling() {
    let vocabulary = vocabulary();
    let crlf = MERGES.replace('\n', "\r\n");
    let bare = MERGES.split_once('\n').unwrap().1;
    let marked = format!("\u{feff}{MERGES}\n\n");
    for merges in [MERGES, &crlf, bare, &marked, bare.trim_end()] {
        let folder = tempfile::tempdir().unwrap();
        pipeline(folder.path(), Some(merges), Some(&vocabulary));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.report().notes.is_empty());
    }
}

#[test]
fn missing_files_are_noted() {
    let check = |merges: Option<&str>, vocabulary: Option<&str>, missing: &str| {
        let folder = tempfile::tempdir().unwrap();
        pipeline(folder.path(), merges, vocabulary);
        let notes = Checkpoint::open(folder.path()).unwrap().report().notes;
        let told = |note: &String| note.contains(missing) && note.contains("built in");
        assert!(notes.len() == 1 && told(&notes[0]), "{notes:?}");
    };
    check(Some(MERGES), None, "vocab.json");
    check(None, Some(&vocabulary()), "merges.txt");
}

#[test]
fn other_merges_are_refused() {
    let check = |merges: &str, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        pipeline(folder.path(), Some(merges), None);
        let kind = ErrorKind::Vocabulary;
        check_refused(load(folder.path()), kind, &["merges.txt", "built in"]);
        check_refused(load(folder.path()), kind, words);
    };
    check("", &["0 merges", "48894"]);
    check(&format!("{MERGES}x y\n"), &["48895 merges"]);
    let (short, _) = MERGES.trim_end().rsplit_once('\n').unwrap();
    check(short, &["48893 merges"]);
    check(&MERGES.replacen("i n\n", "n i\n", 1), &["not CLIP's"]);
    check(&MERGES.replacen("t h\n", "i n\n", 1), &["not CLIP's"]);
}

#[test]
fn other_vocabularies_are_refused() {
    let whole = vocabulary();
    let check = |vocabulary: &str, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        pipeline(folder.path(), None, Some(vocabulary));
        let kind = ErrorKind::Vocabulary;
        check_refused(load(folder.path()), kind, &["vocab.json", "built in"]);
        check_refused(load(folder.path()), kind, words);
    };
    check("{}", &["0 entries", "49408"]);
    check("", &["cannot be read"]);
    check("[1, 2]", &["an object of tokens"]);
    check("{\"a\": -1}", &["`a`", "-1"]);
    check("{\"a\": \"1\"}", &["`a`"]);
    check(&whole[..whole.len() / 2], &["cannot be read"]);
    check(
        &whole.replacen('{', "{\"new\": 49408, ", 1),
        &["49409 entries"],
    );
    check(
        &whole.replacen(": 7,", ": 8,", 1),
        &["the id 8 is there twice"],
    );
    check(&whole.replacen(": 7,", ": 70000,", 1), &["the id 70000"]);
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    pipeline(folder.path(), Some(""), None);
    let path = folder.path().join("tokenizer/merges.txt");
    std::fs::write(&path, b"\xff\xfe i n").unwrap();
    check_refused(load(folder.path()), ErrorKind::Vocabulary, &["not UTF-8"]);
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    check_refused(load(folder.path()), ErrorKind::FileFormat, &["too many"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    check_refused(load(folder.path()), ErrorKind::FileFormat, &["not a file"]);
}
