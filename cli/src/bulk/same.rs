//! Requests that have the tensors of another one: a line of JSON each, beside the packed files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::known::Finished;

/// Bytes of a line: two ids, a hash, the name of a file.
const LINE_AT_MOST: u64 = 1 << 16;

/// A line of the file.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Same {
    pub(super) id: String,
    /// What was asked for.
    pub(super) request: String,
    /// Where the tensors lie, and whose they are.
    pub(super) file: String,
    pub(super) of: String,
}

/// The file as it grows.
pub(super) struct SameFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl SameFile {
    /// Opens the file, behind those lines that an earlier run has left and whose tensors are there;
    /// they are finished, too.
    pub(super) fn open(folder: &Path, stem: &str, finished: &mut Finished) -> Result<SameFile> {
        let path = path(folder, stem);
        let begun = folder.join(format!(".{stem}.same.part"));
        let mut out = BufWriter::new(File::create(&begun).with_context(|| shown(&begun))?);
        each(&path, |same, line| {
            // A kill may lose the tensors and keep this line; tensors of its own came later.
            let is_there = finished.has_packed(&same.file, &same.of, &same.request);
            if is_there && !finished.has_id(&same.id) {
                finished.add(&same.id, &same.request);
                out.write_all(line)?;
            }
            Ok(())
        })?;
        finished.settle();
        out.flush().with_context(|| shown(&begun))?;
        fs::rename(&begun, &path).with_context(|| shown(&path))?;
        let file = OpenOptions::new().append(true).open(&path);
        let out = BufWriter::new(file.with_context(|| shown(&path))?);
        Ok(SameFile { path, out })
    }

    pub(super) fn add(&mut self, same: &Same) -> Result<()> {
        let mut line = serde_json::to_vec(same)?;
        line.push(b'\n');
        self.out.write_all(&line).with_context(|| shown(&self.path))
    }

    pub(super) fn make_safe(&mut self) -> Result<()> {
        self.out.flush().with_context(|| shown(&self.path))
    }
}

/// Hands over every whole line of the file of a folder, if there is one.
pub(super) fn each(path: &Path, mut take: impl FnMut(Same, &[u8]) -> Result<()>) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| shown(path)),
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        let read = lines
            .by_ref()
            .take(LINE_AT_MOST)
            .read_until(b'\n', &mut line);
        if read.with_context(|| shown(path))? == 0 {
            return Ok(());
        }
        let same = serde_json::from_slice(&line);
        if let (true, Ok(same)) = (line.ends_with(b"\n"), same) {
            take(same, &line)?;
        }
        line.clear();
    }
}

pub(super) fn path(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}.same.jsonl"))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a line, one that is none and one without an end are passed over.
    #[test]
    fn lines_that_are_damaged_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "embeddings");
        let line = |id: &str| format!(r#"{{"id":"{id}","request":"r","file":"f","of":"o"}}"#);
        let long = "x".repeat(3 * 65536 + 5);
        let text = [
            &line("a"),
            "\0\0\0",
            &long,
            &line("b"),
            "",
            &line("c")[..20],
        ]
        .join("\n");
        fs::write(&path, text).unwrap();
        let mut ids = Vec::new();
        each(&path, |same, _| {
            ids.push(same.id);
            Ok(())
        })
        .unwrap();
        assert_eq!(ids, ["a", "b"]);
    }
}
