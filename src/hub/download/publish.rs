//! A compared file moves from the staging folder into the cache, in the layout all tools share.

use std::fs;
use std::path::{Path, PathBuf};

use super::transfer::Arrived;
use super::writing;
use crate::error::Result;
use crate::hub::names::{FileName, Revision};

/// Moves the file in and returns its path under `snapshots/`.
pub(super) fn publish(
    folder: &Path,
    revision: &Revision,
    file: &FileName,
    arrived: &Arrived,
) -> Result<PathBuf> {
    let path = file.below(&folder.join("snapshots").join(&arrived.commit));
    make_parent(&path)?;
    if fs::symlink_metadata(&path).is_ok() {
        fs::remove_file(&path).map_err(|error| writing(&path, error))?;
    }
    place(folder, file, arrived, &path)?;
    if !revision.is_commit() {
        let reference = folder.join("refs").join(revision.as_str());
        make_parent(&reference)?;
        fs::write(&reference, &arrived.commit).map_err(|error| writing(&reference, error))?;
    }
    Ok(path)
}

/// The bytes under `blobs/`, a relative link to them under `snapshots/`.
#[cfg(unix)]
fn place(folder: &Path, file: &FileName, arrived: &Arrived, path: &Path) -> Result<()> {
    let blob = folder.join("blobs").join(&arrived.etag);
    make_parent(&blob)?;
    fs::rename(&arrived.blob, &blob).map_err(|error| writing(&blob, error))?;
    let up = "../".repeat(file.depth() + 2);
    std::os::unix::fs::symlink(format!("{up}blobs/{}", arrived.etag), path)
        .map_err(|error| writing(path, error))
}

/// Without links the bytes lie under `snapshots/`, as Python's `huggingface_hub` does it there.
#[cfg(not(unix))]
fn place(_folder: &Path, _file: &FileName, arrived: &Arrived, path: &Path) -> Result<()> {
    fs::rename(&arrived.blob, path).map_err(|error| writing(path, error))
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|error| writing(parent, error))
}
