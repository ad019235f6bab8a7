//! Every layout gives the same tensors; everything broken gives an error that says what and where.

mod activations;
mod container;
mod content;
mod costly;
mod embedding_folders;
mod embeddings;
mod folders;
mod ggufs;
mod hostile_archives;
mod hostile_ggufs;
mod hostile_pickles;
mod identity;
mod layouts;
mod others;
mod parts;
mod paths;
mod pickles;
mod summaries;
mod tokenizers;
mod transfers;
mod values;
mod writing;

use std::path::Path;

use sd_conditioner::weights::{Checkpoint, Encoders};
use sd_conditioner::{Error, ErrorKind};

/// Opens a file and asks for every encoder in it: what a program that loads it does.
fn load(path: &Path) -> Result<Encoders, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let encoders = checkpoint.encoders().into_iter();
    encoders
        .map(|encoder| Ok((encoder, checkpoint.encoder(encoder)?)))
        .collect()
}

/// An error of this kind, with a path, whose text has all these words.
#[track_caller]
fn check_refused<T>(result: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let Err(error) = result else {
        panic!("accepted, but expected {kind:?} with {words:?}")
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.path().is_some(), "no path in: {error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}
