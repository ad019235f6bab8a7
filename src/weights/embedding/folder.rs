//! A folder of embeddings → names, and each file when it is first asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Embedding, refuse};
use crate::error::{Error, Result};

/// The extensions of embeddings, in the order in which `ComfyUI` tries them
/// (`load_embed` in `comfy/sd1_clip.py`), and the one of diffusers' advanced trainer.
const EXTENSIONS: [&str; 4] = [".safetensors", ".pt", ".bin", ".pti"];

/// How deep folders are looked through.
const DEEPEST: usize = 16;

/// A folder of textual-inversion files, listed once, each file read when it is first asked for.
/// May be shared between threads.
///
/// A name is the path below the folder with `/` between its parts and without the extension:
/// `bad-hands`, `sdxl/style`. A file with the extension `.safetensors` goes before a `.pt`, a
/// `.bin` and a `.pti` of the same name. Files that come later are not seen.
#[derive(Debug)]
pub struct EmbeddingFolder {
    path: PathBuf,
    files: Vec<Indexed>,
    /// With extension, as on the disk.
    by_file: BTreeMap<String, usize>,
    /// Without extension.
    by_name: BTreeMap<String, usize>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Indexed {
    path: PathBuf,
    rank: usize,
    read: OnceLock<Arc<Embedding>>,
}

impl EmbeddingFolder {
    /// Lists a folder and the folders in it; opens no file.
    pub fn open(path: impl AsRef<Path>) -> Result<EmbeddingFolder> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if !metadata.is_dir() {
            let error = refuse("this is not a folder of embeddings").at_path(path);
            return Err(error.hint("give the folder that holds the file"));
        }
        let mut folder = EmbeddingFolder {
            path: path.to_owned(),
            files: Vec::new(),
            by_file: BTreeMap::new(),
            by_name: BTreeMap::new(),
            notes: Vec::new(),
        };
        let mut seen = BTreeSet::from([real(path)?]);
        folder.list(path, "", DEEPEST, &mut seen)?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The embedding of this name, with or without the extension, exactly as it is spelt on the
    /// disk. `None` if there is none; a name that reaches out of the folder (`../x`) never has one.
    /// A file that cannot be used gives its error each time.
    pub fn get(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        let Some(name) = inside(name) else {
            return Ok(None);
        };
        let found = self.by_file.get(&name).or_else(|| self.by_name.get(&name));
        let Some(file) = found.map(|index| &self.files[*index]) else {
            return Ok(None);
        };
        if let Some(read) = file.read.get() {
            return Ok(Some(Arc::clone(read)));
        }
        let read = Arc::new(Embedding::open(&file.path)?);
        Ok(Some(Arc::clone(file.read.get_or_init(|| read))))
    }

    /// Folders and files that could not be listed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds what is in `folder`, whose path below the top is `prefix`.
    fn list(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        let io = |error| Error::io(folder, error);
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                let note = format!("{}: not a name in UTF-8, left out", path.display());
                self.notes.push(note);
                continue;
            };
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                self.list_inner(&path, &format!("{name}/"), depth, seen);
            } else if path.is_file() {
                self.add(path, name);
            }
        }
        Ok(())
    }

    /// A folder that cannot be listed costs only what is in it.
    fn list_inner(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let listed = real(folder).and_then(|real| {
            // A link to a folder that was listed already leads round in a circle.
            if depth == 0 || !seen.insert(real) {
                return Ok(());
            }
            self.list(folder, prefix, depth - 1, seen)
        });
        if let Err(error) = listed {
            self.notes.push(format!("left out: {error}"));
        }
    }

    /// Takes a file in if its extension is an embedding's.
    fn add(&mut self, path: PathBuf, file: String) {
        let known = EXTENSIONS
            .iter()
            .enumerate()
            .find_map(|(rank, extension)| Some((rank, strip_extension(&file, extension)?)));
        let Some((rank, name)) = known else {
            return;
        };
        let name = name.to_owned();
        let index = self.files.len();
        let best = self.by_name.get(&name).map(|other| self.files[*other].rank);
        if best.is_none_or(|best| rank < best) {
            self.by_name.insert(name, index);
        }
        self.by_file.insert(file, index);
        let read = OnceLock::new();
        self.files.push(Indexed { path, rank, read });
    }
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::io(path, error))
}

/// The name without an extension in any case; `None` if it has another or is nothing else.
fn strip_extension<'a>(file: &'a str, extension: &str) -> Option<&'a str> {
    let at = file.len().checked_sub(extension.len())?;
    let (name, end) = (file.get(..at)?, file.get(at..)?);
    let whole = !name.is_empty() && !name.ends_with('/');
    (whole && end.eq_ignore_ascii_case(extension)).then_some(name)
}

/// The name with `.`, `..` and doubled slashes worked out; `None` if it begins at the root or leads
/// out of the folder.
fn inside(name: &str) -> Option<String> {
    let name = if cfg!(windows) {
        name.replace('\\', "/")
    } else {
        name.to_owned()
    };
    if name.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_inside() {
        let check = |name: &str, want: Option<&str>| {
            assert_eq!(inside(name).as_deref(), want, "{name}");
        };
        check("one", Some("one"));
        check("a/./b//one", Some("a/b/one"));
        check("a/../one", Some("one"));
        check("../one", None);
        check("a/../../one", None);
        check("/etc/passwd", None);
        check("", Some(""));
    }

    #[test]
    fn extensions() {
        assert_eq!(strip_extension("a/x.PT", ".pt"), Some("a/x"));
        assert_eq!(strip_extension("x.v1.pt", ".pt"), Some("x.v1"));
        assert_eq!(strip_extension(".pt", ".pt"), None);
        assert_eq!(strip_extension("a/.pt", ".pt"), None);
        assert_eq!(strip_extension("é.bin", ".safetensors"), None);
    }
}
