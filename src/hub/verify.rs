//! Whether a file is what it should be.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sha2::Digest;

use super::hub_error;
use super::names::Sha256;
use crate::error::{Error, Result};

/// Read at a time while a checksum is computed.
const PIECE: usize = 1 << 20;

/// Refuses a file of another length.
pub(super) fn size(path: &Path, bytes: u64) -> Result<()> {
    let found = fs::metadata(path)
        .map_err(|error| Error::io(path, error))?
        .len();
    if found == bytes {
        return Ok(());
    }
    let guess = if found < bytes {
        ", an incomplete download?"
    } else {
        ""
    };
    Err(hub_error(format!("expected {bytes} bytes, found {found}{guess}")).at_path(path))
}

/// Refuses a file with another checksum. Tells `progress` how many bytes were read; its error is passed on.
pub(super) fn sha256(
    path: &Path,
    wanted: &Sha256,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let found = sha256_of(path, progress)?;
    if found == wanted.as_str() {
        return Ok(());
    }
    Err(hub_error(format!(
        "expected sha256 {wanted}, found {found}: the file is damaged or another one"
    ))
    .at_path(path))
}

/// What to say when a fetched file turns out to be of no use, for example because it cannot be
/// parsed: which blob, and which link to it, to delete so that the next call fetches it afresh.
///
/// ```
/// let hint = sd_conditioner::hub::to_delete("model.safetensors".as_ref());
/// assert_eq!(hint, "delete model.safetensors, then fetch again");
/// ```
pub fn to_delete(path: &Path) -> String {
    let link = path.display();
    match fs::canonicalize(path) {
        Ok(blob) if is_link(path) => {
            format!("delete {} and {link}, then fetch again", blob.display())
        }
        Ok(_) | Err(_) => format!("delete {link}, then fetch again"),
    }
}

/// The same error with the hint of [`to_delete`] after its own.
pub(super) fn damaged(path: &Path, error: Error) -> Error {
    let mut told = Error::new(error.kind(), error.message()).at_path(path);
    if let Some(tensor) = error.tensor() {
        told = told.at_tensor(tensor);
    }
    let hint = match error.hint_text() {
        Some(hint) => format!("{hint}; {}", to_delete(path)),
        None => to_delete(path),
    };
    told.hint(hint).because(error)
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn sha256_of(path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<String> {
    let io = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let count = file.read(&mut piece).map_err(io)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        done += count as u64;
        progress(done)?;
    }
    Ok(hash
        .finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes every text");
            text
        }))
}
