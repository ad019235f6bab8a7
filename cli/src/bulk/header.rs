//! Entries → the header of a packed file, as text that grows.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::parts::{Entry, n_bytes};
use crate::scribe::Metadata;

/// Names of one file's tensors, as hashes of 64 bits. Where two names share one by accident, a file
/// more is begun, or what is good ends early; nothing is lost.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<u64>);

impl Names {
    /// False if it was there before.
    pub(super) fn add(&mut self, name: &str) -> bool {
        self.0.insert(hashed(name))
    }

    /// Adds an entry's names; false if one was there before.
    pub(super) fn add_all(&mut self, entry: &Entry) -> bool {
        self.add(&own(&entry.id)) && names(entry).all(|name| self.add(&name))
    }

    /// Whether an entry has a name that is there. `x` with a hires pass and `x.hires` share some, and what
    /// is made anew may share none and has its id.
    pub(super) fn has_any(&self, entry: &Entry) -> bool {
        let mut all = names(entry).chain([own(&entry.id)]);
        all.any(|name| self.0.contains(&hashed(&name)))
    }
}

fn hashed(name: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

/// What stands for an id among names. No name of a tensor begins so.
fn own(id: &str) -> String {
    format!("\0{id}")
}

/// What the tensors of an entry are called in the file.
fn names(entry: &Entry) -> impl Iterator<Item = String> {
    let tensors = entry.tensors.iter();
    tensors.map(|(name, ..)| format!("{}.{name}", entry.id))
}

/// The header's text as it grows.
#[derive(Default)]
pub(super) struct Header {
    said: String,
    tensors: String,
    names: Names,
}

impl Header {
    pub(super) fn new(facts: &Metadata) -> Result<Header> {
        let mut header = Header::default();
        for (key, value) in facts {
            header.say(key, value)?;
        }
        Ok(header)
    }

    fn say(&mut self, key: &str, value: &str) -> Result<()> {
        let comma = if self.said.is_empty() { "" } else { "," };
        let (key, value) = (serde_json::to_string(key)?, serde_json::to_string(value)?);
        self.said.extend([comma, &key, ":", &value]);
        Ok(())
    }

    /// Adds an entry whose tensors start at `start`. Refuses a name that is there: no reader takes
    /// such a file.
    pub(super) fn add(&mut self, entry: &Entry, mut start: u64) -> Result<()> {
        if !self.names.add_all(entry) {
            bail!(
                "`{}` has a tensor of a name that is in the file already",
                entry.id
            );
        }
        let said = serde_json::to_string(&entry.said)?;
        self.say(&format!("request.{}", entry.id), &said)?;
        for (name, (_, dtype, shape)) in names(entry).zip(&entry.tensors) {
            let name = serde_json::to_string(&name)?;
            let end = start.checked_add(n_bytes(dtype, shape)?);
            let end = end.with_context(|| format!("a tensor of shape {shape:?}"))?;
            let about = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
            self.tensors.extend([",", &name, ":", &about.to_string()]);
            start = end;
        }
        Ok(())
    }

    /// Whether an entry can be added.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        !self.names.has_any(entry)
    }

    pub(super) fn length(&self) -> u64 {
        (self.said.len() + self.tensors.len() + 32) as u64
    }

    pub(super) fn text(&self) -> String {
        let Header { said, tensors, .. } = self;
        format!("{{\"__metadata__\":{{{said}}}{tensors}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: &str) -> Entry {
        let tensor = (name.to_owned(), "F32".to_owned(), vec![1]);
        Entry::new(id, Metadata::new(), vec![tensor]).unwrap()
    }

    #[test]
    fn a_name_that_is_there_is_refused() {
        let mut header = Header::new(&Metadata::new()).unwrap();
        header.add(&entry("x", "hires.time_ids"), 0).unwrap();
        let (other, same) = (entry("x.hires", "vector"), entry("x.hires", "time_ids"));
        assert!(header.takes(&other) && !header.takes(&same));
        header.add(&other, 4).unwrap();
        let error = header.add(&same, 8).unwrap_err().to_string();
        assert!(error.contains("in the file already"), "{error}");
        assert!(!header.text().contains("[8,12]"));
    }
}
