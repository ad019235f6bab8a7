//! A FOLDER → NAMES. Files of some extensions in a folder and the folders in it, listed once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How deep folders are looked through, and how many files and folders are looked at.
const DEEPEST: usize = 16;
const MOST: usize = 1 << 17;

/// What was found. Files that come later are not seen.
#[derive(Debug)]
pub(super) struct Listing {
    extensions: &'static [&'static str],
    files: Vec<Listed>,
    /// With extension, as on the disk.
    by_file: BTreeMap<String, usize>,
    /// Without extension.
    by_name: BTreeMap<String, usize>,
    notes: Vec<String>,
    /// Files and folders that may still be looked at.
    left: usize,
}

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    /// Place of its extension among those that were asked for.
    rank: usize,
}

impl Listing {
    /// Lists a folder; opens no file. A name is the path below the folder with `/` between its
    /// parts and without the extension; where several files have one name, the one whose extension
    /// comes first in `extensions` has it.
    pub(super) fn open(path: &Path, extensions: &'static [&'static str]) -> Result<Listing> {
        let mut listing = Listing {
            extensions,
            files: Vec::new(),
            by_file: BTreeMap::new(),
            by_name: BTreeMap::new(),
            notes: Vec::new(),
            left: MOST,
        };
        // What the folder lies in, up to `/`, is no part of it, whatever a link in it says.
        let mut seen: BTreeSet<PathBuf> = real(path)?.ancestors().map(Path::to_owned).collect();
        listing.list(path, "", DEEPEST, &mut seen)?;
        if listing.left == 0 {
            let note = format!("of the folder's files and folders, {MOST} were looked at");
            listing.notes.push(note);
        }
        Ok(listing)
    }

    /// How many files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Every name with its file's place, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_name
            .iter()
            .map(|(name, place)| (name.as_str(), *place))
    }

    /// Where a file is.
    pub(super) fn path(&self, place: usize) -> &Path {
        &self.files[place].path
    }

    /// The file of this name, with or without the extension, exactly as it is spelt on the disk. A
    /// name that reaches out of the folder (`../x`) never has one.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let name = inside(name)?;
        let found = self.by_file.get(&name).or_else(|| self.by_name.get(&name));
        found.copied()
    }

    /// The same, its name being the path below one of the folders: the first that has it.
    pub(super) fn find_below(&self, name: &str) -> Option<usize> {
        let name = inside(name).filter(|name| !name.is_empty())?;
        let folders: BTreeSet<&str> = self.by_file.keys().flat_map(|file| above(file)).collect();
        let mut there = folders.into_iter().map(|folder| format!("{folder}/{name}"));
        there.find_map(|name| self.find(&name))
    }

    /// Folders and files that could not be listed.
    pub(super) fn notes(&self) -> &[String] {
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
            let Some(left) = self.left.checked_sub(1) else {
                return Ok(());
            };
            self.left = left;
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
            // A link to a folder that was listed already, or that holds all of them, leads round in
            // a circle.
            if depth == 0 || !seen.insert(real) {
                return Ok(());
            }
            self.list(folder, prefix, depth - 1, seen)
        });
        if let Err(error) = listed {
            self.notes.push(format!("left out: {error}"));
        }
    }

    /// Takes a file in if it has one of the extensions.
    fn add(&mut self, path: PathBuf, file: String) {
        let known = self
            .extensions
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
        self.files.push(Listed { path, rank });
    }
}

/// The folders that a file lies in.
fn above(file: &str) -> impl Iterator<Item = &str> {
    file.match_indices('/').map(|(at, _)| &file[..at])
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
