//! The tokenizer folders of a pipeline. Their vocabulary is CLIP's in every model that this crate
//! reads, and built into it, so they are only compared with it.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::file;
use super::shards::{read_bytes, read_json};
use crate::error::{Error, ErrorKind, Result, named};

/// Entries of CLIP's `vocab.json`.
const ENTRIES: usize = 49408;

/// Lines of CLIP's `merges.txt` after its header.
const MERGES: usize = 48894;

/// SHA-256 of those lines, each with a line feed. A test compares it with the built-in file.
const MERGES_SHA256: [u8; 8] = [0xd3, 0x08, 0xb7, 0x37, 0x7a, 0x8c, 0xea, 0xa9];

/// The longest file that is read; real ones have 0.5 and 1 MB.
const LONGEST: u64 = 16 << 20;

/// Checks a folder's `merges.txt` and `vocab.json`, if it has them; notes about what is missing.
pub(crate) fn check(folder: &Path) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if !folder.is_dir() {
        return Ok(notes);
    }
    let (merges, vocabulary) = (folder.join("merges.txt"), folder.join("vocab.json"));
    for (path, check) in [
        (merges, check_merges as fn(&Path) -> Result<()>),
        (vocabulary, check_entries),
    ] {
        if file::is_there(&path) {
            check(&path).map_err(|error| error.at_path(&path).hint(OTHER))?;
        } else {
            let note = format!("{} is missing; CLIP's own is built in", path.display());
            notes.push(note);
        }
    }
    Ok(notes)
}

const OTHER: &str = "CLIP's vocabulary is built in; an encoder that was trained with another one \
                     cannot be used, and a damaged tokenizer folder can be deleted";

fn check_merges(path: &Path) -> Result<()> {
    let bytes = read_bytes(path, LONGEST)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| broken("merges.txt is not UTF-8 text").because(error))?;
    let lines = text.trim_start_matches('\u{feff}').lines();
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.contains("#version"))
        .collect();
    if lines.len() != MERGES {
        let count = lines.len();
        return Err(broken(format!("{count} merges; CLIP has {MERGES}")));
    }
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update("\n");
    }
    if hash.finalize()[..8] != MERGES_SHA256 {
        return Err(broken("these are not CLIP's merges"));
    }
    Ok(())
}

fn check_entries(path: &Path) -> Result<()> {
    let entries: Entries = read_json(path, LONGEST)
        .map_err(|error| Error::new(ErrorKind::Vocabulary, error.message()).because(error))?;
    let mut ids = entries.0;
    let count = ids.len();
    if count != ENTRIES {
        return Err(broken(format!("{count} entries; CLIP has {ENTRIES}")));
    }
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
    if let Some([id, ..]) = twice {
        return Err(broken(format!("the id {id} is there twice")));
    }
    match ids.last() {
        Some(last) if *last as usize >= ENTRIES => {
            Err(broken(format!("the id {last} is none of CLIP's")))
        }
        Some(_) | None => Ok(()),
    }
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Vocabulary, message)
}

/// The ids of a `vocab.json`.
struct Entries(Vec<u32>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tokens and their ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut ids = Vec::new();
        while let Some(token) = map.next_key::<String>()? {
            let at = |error: A::Error| A::Error::custom(format!("`{}`: {error}", named(&token)));
            ids.push(map.next_value::<u32>().map_err(at)?);
        }
        Ok(Entries(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_built_in_files() {
        let text = include_str!("../../tokens/vocabulary/merges.txt");
        let (_, merges) = text.split_once('\n').unwrap();
        assert_eq!(Sha256::digest(merges)[..8], MERGES_SHA256);
    }
}
