//! Names, the catalog, the cache, and downloads from a hub that these tests play themselves.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it was set up"
)]

#[cfg(feature = "hub")]
#[path = "hub/broken.rs"]
mod broken;
#[path = "hub/cache.rs"]
mod cache;
#[cfg(feature = "hub")]
#[path = "hub/download.rs"]
mod download;
#[path = "hub/loading.rs"]
mod loading;
#[path = "hub/names.rs"]
mod names;
#[cfg(feature = "hub")]
#[path = "hub/server.rs"]
mod server;
#[cfg(feature = "hub")]
#[path = "hub/stopped.rs"]
mod stopped;

#[cfg(feature = "hub")]
use std::fs;
use std::path::Path;
#[cfg(feature = "hub")]
use std::path::PathBuf;
use std::time::Duration;

use sd_conditioner::Result;
use sd_conditioner::hub::{Catalog, Fetched, Hub, HubOptions};
use sha2::Digest;

/// The commit that the played repositories are at.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The file that the played repositories hold.
const FILE: &str = "text_encoder/model.safetensors";
/// What is in it.
const CONTENT: &[u8] = b"forty bytes that stand for a text encoder";

/// A catalog with one entry, `tiny`, made of `lines` and one file that fits [`CONTENT`].
fn tiny(lines: &str) -> Catalog {
    let (bytes, sha256) = (CONTENT.len(), sha256(CONTENT));
    catalog(lines, &format!("bytes = {bytes}\nsha256 = \"{sha256}\""))
}

/// A catalog with one entry, `tiny`, whose file is described by `file`.
fn catalog(lines: &str, file: &str) -> Catalog {
    let text = format!(
        "[[checkpoint]]\nname = \"tiny\"\nfamily = \"sd1\"\n{lines}\n\
         [[checkpoint.files]]\nencoders = [\"clip_l\"]\npath = \"{FILE}\"\n{file}\n"
    );
    Catalog::parse(&text).unwrap()
}

/// The entry most tests use: one repository, no mirror, revision `main`.
fn plain() -> Catalog {
    tiny("repo = \"someone/tiny\"")
}

fn sha256(bytes: &[u8]) -> String {
    let digits = sha2::Sha256::digest(bytes)
        .into_iter()
        .flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(u32::from(digit), 16).unwrap())
        .collect()
}

fn options(cache: &Path) -> HubOptions {
    let timeout = Duration::from_secs(5);
    HubOptions {
        cache_dir: Some(cache.to_owned()),
        timeout,
        retries: 0,
        ..HubOptions::default()
    }
}

fn fetch(options: HubOptions, catalog: Catalog) -> Result<Fetched> {
    Hub::with_catalog(options, catalog).fetch("tiny", &mut |_| {})
}

/// The message of the error that fetching must give.
fn refusal(options: HubOptions, catalog: Catalog) -> String {
    fetch(options, catalog)
        .expect_err("this must not be fetched")
        .to_string()
}

fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[cfg(feature = "hub")]
/// Every file and link below `folder` that tools would find in a cache: not the locks.
fn visible(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let hidden = [".locks", ".sd-conditioner"]
                .iter()
                .any(|name| entry.file_name() == *name);
            match entry.file_type().unwrap().is_dir() {
                true if hidden => {}
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}
