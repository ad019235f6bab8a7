//! Weights in several files: `model.safetensors.index.json` and its shards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path};

use serde::Deserialize;

use super::archive::Archive;
use super::file;
use crate::error::{Error, ErrorKind, Result};

/// The longest index file that is read; a text encoder's has some hundred lines.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
    #[serde(default)]
    metadata: serde_json::Value,
}

/// Opens every shard that an index names and checks them against it.
pub(crate) fn open(index_path: &Path) -> Result<Archive> {
    let index: Index = read_json(index_path, MAX_INDEX)?;
    let mut archive = Archive::empty(index_path);
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    if shards.is_empty() {
        return Err(broken("the index names no tensor".to_owned()).at_path(index_path));
    }
    for shard in shards {
        let path = beside(index_path, shard)?;
        if !path.exists() {
            let message = format!("the index names the shard `{shard}`, which is missing");
            return Err(Error::new(ErrorKind::Io, message)
                .at_path(path)
                .hint("download it"));
        }
        archive.add(&path)?;
    }
    check(&mut archive, &index)?;
    Ok(archive)
}

/// Every listed tensor is in its shard; the total is what the index says (otherwise a note).
fn check(archive: &mut Archive, index: &Index) -> Result<()> {
    for (name, shard) in &index.weight_map {
        let entry = archive.entries.get(name);
        let holder = entry.and_then(|entry| archive.path_of(entry).file_name());
        if holder.is_none_or(|holder| holder.to_string_lossy() != *shard) {
            let message = format!("the index puts this tensor into `{shard}`, which lacks it");
            return Err(broken(message).at_path(&archive.path).at_tensor(name));
        }
    }
    let found: u64 = archive.entries.values().map(|entry| entry.n_bytes).sum();
    let told = index
        .metadata
        .get("total_size")
        .and_then(serde_json::Value::as_u64);
    if let Some(told) = told.filter(|told| *told != found) {
        let note = format!("the index gives a total of {told} bytes, the shards have {found}");
        archive.notes.push(note);
    }
    Ok(())
}

/// A file named by another file: it must be a plain name, so that no index reaches out of its
/// folder.
fn beside(index_path: &Path, name: &str) -> Result<std::path::PathBuf> {
    let mut parts = Path::new(name).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    if !plain || name.contains(['/', '\\', '\0']) {
        let message = format!("the index names the shard `{name}`, which is not a plain file name");
        return Err(broken(message).at_path(index_path));
    }
    Ok(index_path.with_file_name(name))
}

/// Reads a JSON file of a bounded length.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, limit: u64) -> Result<T> {
    let text = read_bytes(path, limit)?;
    serde_json::from_slice(&text).map_err(|error| {
        let message = format!("this JSON file cannot be read: {error}");
        broken(message).because(error).at_path(path)
    })
}

/// Reads a whole file of a bounded length.
pub(super) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = file::open(path)?;
    if length > limit {
        let message = format!("{length} bytes are too many for a file of this kind");
        return Err(broken(message).at_path(path));
    }
    let mut text = Vec::new();
    let read = file.take(limit).read_to_end(&mut text);
    read.map_err(|error| Error::io(path, error))?;
    Ok(text)
}

fn broken(message: String) -> Error {
    Error::new(ErrorKind::FileFormat, message)
}
