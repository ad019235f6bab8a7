//! A LORA FILE → A CHEAP NAME FOR ITS CONTENT.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::weights::checkpoint::{SAMPLE_BYTES, SAMPLES, spread};
use crate::weights::format::archive::{Archive, Entry};

/// SHA-256 of what the header says and of a sample of the matrices; what cannot be read any more
/// counts as empty.
pub(super) fn fingerprint(archive: &Archive) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("lora {}\n", archive.n_bytes()));
    for (name, entry) in &archive.entries {
        let (stored, shape, start) = (entry.stored, &entry.shape, entry.start);
        hash.update(format!("{name} {stored} {shape:?} {start}\n"));
    }
    let matrices: Vec<&Entry> = archive
        .entries
        .values()
        .filter(|entry| entry.shape.len() >= 2)
        .collect();
    for entry in spread(&matrices, SAMPLES) {
        let sample = archive.read(entry, 0..entry.n_bytes.min(SAMPLE_BYTES));
        hash.update(sample.unwrap_or_default());
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
