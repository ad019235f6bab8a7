//! Packed files → one JSON object that says where each request lies. Written with one header in memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::finished;
use super::replaced::Replaced;
use super::same;
use crate::scribe::Metadata;

/// The numbers of files that are called `{before}{stem}-{number}{behind}`, in order.
pub(super) fn numbers(folder: &Path, stem: &str, before: &str, behind: &str) -> Result<Vec<u32>> {
    let failed = || folder.display().to_string();
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        let name = name.to_string_lossy();
        let rest = name
            .strip_prefix(before)
            .and_then(|name| name.strip_prefix(stem));
        let digits = rest.and_then(|rest| rest.strip_prefix('-')?.strip_suffix(behind));
        let number = digits.and_then(|digits| digits.parse::<u32>().ok());
        // Files that others have called nearly so are none of ours.
        numbers.extend(number.filter(|number| digits == Some(&format!("{number:05}"))));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The requests of a packed file by id, and what is said of each.
pub(super) fn entries(metadata: &Metadata) -> impl Iterator<Item = (&str, Metadata)> {
    metadata.iter().filter_map(|(key, said)| {
        let id = key.strip_prefix("request.")?;
        Some((id, serde_json::from_str(said).ok()?))
    })
}

/// The index as it grows.
struct Index {
    path: PathBuf,
    out: BufWriter<File>,
    /// What stands before the next request.
    before: &'static str,
}

/// Writes the index of all whole files beside them. Returns how many bytes of their tensors are in the place
/// of others and not in it.
pub(super) fn write(
    (folder, stem): (&Path, &str),
    facts: &Metadata,
    mut replaced: Replaced,
) -> Result<u64> {
    let begun = folder.join(format!(".{stem}.index.part"));
    let file = File::create(&begun).with_context(|| begun.display().to_string())?;
    let mut index = Index {
        path: begun,
        out: BufWriter::new(file),
        before: "\n",
    };
    index.text(&format!(
        "{{\"metadata\":{},\n\"requests\":{{",
        json!(facts)
    ))?;
    for number in numbers(folder, stem, "", ".safetensors")? {
        let name = format!("{stem}-{number:05}.safetensors");
        let header = finished::header(&folder.join(&name)).with_context(|| name.clone())?;
        for (id, _) in entries(&header.metadata) {
            if replaced.counts(id, &name) {
                index.request(id, &name, id)?;
            }
        }
    }
    same::each(&same::path(folder, stem), |same, _| {
        if replaced.has(&same.id) {
            return Ok(());
        }
        replaced.is_used(&same.of, &same.file);
        index.request(&same.id, &same.file, &same.of)
    })?;
    index.text("\n}}\n")?;
    index.finish(&folder.join(format!("{stem}.index.json")))?;
    replaced.unused_bytes(folder)
}

impl Index {
    fn text(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes());
        written.with_context(|| self.path.display().to_string())
    }

    /// Where a request's tensors lie, and what stands before their names.
    fn request(&mut self, id: &str, file: &str, of: &str) -> Result<()> {
        let place = json!({ "file": file, "prefix": format!("{of}.") });
        self.text(&format!("{}{}:{place}", self.before, json!(id)))?;
        self.before = ",\n";
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<()> {
        let failed = || self.path.display().to_string();
        let file = self.out.into_inner().with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&self.path, path).with_context(failed)
    }
}
