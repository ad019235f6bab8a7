//! Requests that were made anew in another packed file: of each id the last file counts, and its tensors
//! more than another one's that were equal once. What was there before stays where it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::finished;
use super::index;
use super::known::hashed;
use super::same;

/// Ids that are in several places.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// The file that counts, by id.
    last: HashMap<String, String>,
    /// Ids whose tensors nobody is led to, by file.
    unused: BTreeMap<String, HashSet<String>>,
}

impl Replaced {
    /// Looks for ids that are there twice. Of all others a hash is kept while it looks.
    pub(super) fn find((folder, stem): (&Path, &str)) -> Result<Replaced> {
        let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
        each((folder, stem), |id, _| {
            if !seen.insert(hashed(id)) {
                twice.insert(hashed(id));
            }
        })?;
        same::each(&same::path(folder, stem), |same, _| {
            twice.extend(Some(hashed(&same.id)).filter(|id| seen.contains(id)));
            Ok(())
        })?;
        let mut replaced = Replaced::default();
        if twice.is_empty() {
            return Ok(replaced);
        }
        each((folder, stem), |id, file| {
            if twice.contains(&hashed(id)) {
                let before = replaced.last.insert(id.to_owned(), file.to_owned());
                if let Some(before) = before {
                    replaced
                        .unused
                        .entry(before)
                        .or_default()
                        .insert(id.to_owned());
                }
            }
        })?;
        Ok(replaced)
    }

    /// Whether the tensors of an id in a file are those that count.
    pub(super) fn counts(&self, id: &str, file: &str) -> bool {
        self.last.get(id).is_none_or(|last| last == file)
    }

    /// Whether an id has tensors of its own, in place of another one's.
    pub(super) fn has(&self, id: &str) -> bool {
        self.last.contains_key(id)
    }

    /// Another id has these tensors, and is led to them.
    pub(super) fn is_used(&mut self, id: &str, file: &str) {
        if let Some(unused) = self.unused.get_mut(file) {
            unused.remove(id);
        }
    }

    /// Bytes of the tensors that nobody is led to.
    pub(super) fn unused_bytes(&self, folder: &Path) -> Result<u64> {
        let mut bytes = 0;
        for (file, unused) in self.unused.iter().filter(|(_, unused)| !unused.is_empty()) {
            let path = folder.join(file);
            let header = finished::header(&path).with_context(|| file.clone())?;
            let ids: HashSet<&str> = index::entries(&header.metadata).map(|(id, _)| id).collect();
            let count = |name: &str, n_bytes| {
                bytes += if is_unused(name, &ids, unused) {
                    n_bytes
                } else {
                    0
                };
            };
            finished::header_of(&path, count).with_context(|| file.clone())?;
        }
        Ok(bytes)
    }
}

/// Hands over every request of the whole files, file by file, with the file's name.
fn each((folder, stem): (&Path, &str), mut take: impl FnMut(&str, &str)) -> Result<()> {
    for number in index::numbers(folder, stem, "", ".safetensors")? {
        let file = format!("{stem}-{number:05}.safetensors");
        let header = finished::header(&folder.join(&file)).with_context(|| file.clone())?;
        for (id, _) in index::entries(&header.metadata) {
            take(id, &file);
        }
    }
    Ok(())
}

/// Whether all ids whose tensor it can be, by its name, are unused: `x.hires.time_ids` is one of `x` or one of
/// `x.hires`, and where both are there the name does not tell.
fn is_unused(name: &str, ids: &HashSet<&str>, unused: &HashSet<String>) -> bool {
    let starts = name.rmatch_indices('.').map(|(dot, _)| &name[..dot]);
    let mut owners = starts.filter(|start| ids.contains(start)).peekable();
    owners.peek().is_some() && owners.all(|id| unused.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_unused_if_all_who_may_have_it_are() {
        let ids = HashSet::from(["x", "x.hires", "y", "z.hires"]);
        let cases: [(&str, &[&str], bool); 9] = [
            ("y.hires.time_ids", &["y"], true),
            ("y.hires.time_ids", &["x"], false),
            ("x.prompt_embeds.0", &["x"], true),
            ("x.prompt_embeds.0", &["x.hires"], false),
            ("x.hires.time_ids", &["x"], false),
            ("x.hires.time_ids", &["x.hires"], false),
            ("x.hires.time_ids", &["x", "x.hires"], true),
            ("z.time_ids", &["x", "y", "z.hires"], false),
            ("x", &["x"], false),
        ];
        for (name, unused, want) in cases {
            let unused = unused.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(is_unused(name, &ids, &unused), want, "{name} {unused:?}");
        }
    }
}
