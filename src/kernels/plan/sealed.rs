//! Texts in files that are believed only as they were written: each beside its hash.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    body: String,
}

/// The text, if it is whole; no more than `most_bytes` of the file are read.
pub(super) fn read(file: &Path, most_bytes: u64) -> Option<String> {
    let mut bytes = Vec::new();
    let mut open = fs::File::open(file).ok()?.take(most_bytes);
    open.read_to_end(&mut bytes).ok()?;
    let sealed: Sealed = serde_json::from_slice(&bytes).ok()?;
    (sealed.sha256 == sha256(sealed.body.as_bytes())).then_some(sealed.body)
}

/// Writes the file whole or not at all, and the folder that it is in.
pub(super) fn write(file: &Path, body: String) -> io::Result<()> {
    let sealed = Sealed {
        sha256: sha256(body.as_bytes()),
        body,
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let beside = file.with_extension(format!("{process}-{thread:?}.tmp"));
    fs::write(&beside, serde_json::to_vec(&sealed)?)?;
    fs::rename(&beside, file).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// In hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Two digits a byte.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let room = String::with_capacity(2 * bytes.len());
    bytes.iter().fold(room, |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
