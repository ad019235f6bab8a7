//! A FOLDER → NAMES. Files of some extensions in a folder and the folders in it, listed once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How deep folders are looked through, and how many files and folders are looked at.
const DEEPEST: usize = 16;
const MOST: usize = 1 << 17;

/// What was found. Files that come later are not seen.
#[derive(Debug)]
pub(super) struct Listing {
    /// The parts of the folder's path.
    top: Vec<String>,
    extensions: &'static [&'static str],
    files: Vec<Listed>,
    /// With extension, as on the disk.
    by_file: BTreeMap<String, usize>,
    /// Without extension.
    by_name: BTreeMap<String, usize>,
    /// What files are called, with extension and without, whatever folder they lie in.
    own: BTreeSet<String>,
    /// The folders that have some.
    folders: BTreeSet<String>,
    notes: Vec<String>,
    /// Files and folders that may still be looked at.
    left: usize,
}

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    /// Below the folder, with extension.
    file: String,
    /// Place of its extension among those that were asked for.
    rank: usize,
}

impl Listing {
    /// Lists a folder; opens no file. A name is the path below the folder with `/` between its
    /// parts and without the extension; where several files have one name, the one whose extension
    /// comes first in `extensions` has it.
    pub(super) fn open(path: &Path, extensions: &'static [&'static str]) -> Result<Listing> {
        let mut listing = Listing {
            top: written(path),
            extensions,
            files: Vec::new(),
            by_file: BTreeMap::new(),
            by_name: BTreeMap::new(),
            own: BTreeSet::new(),
            folders: BTreeSet::new(),
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

    /// What a file is called below the folder, with its extension.
    pub(super) fn file(&self, place: usize) -> &str {
        &self.files[place].file
    }

    /// The file of this name, with or without the extension, exactly as it is spelt on the disk. A
    /// name that reaches out of the folder (`../x`) never has one.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let name = inside(name)?;
        let found = self.by_file.get(&name).or_else(|| self.by_name.get(&name));
        found.copied()
    }

    /// The same, its name being the path below the top or one of the folders: every place that it has, in the order
    /// of the folders. A name may lead out of such a folder if it comes back in (`../folder/x`); the folders that it
    /// leads through need not be there.
    pub(super) fn find_anywhere(&self, name: &str) -> Vec<usize> {
        let slashed = slashed(name);
        // A text may hold thousands of names that no file has.
        if !led(&[], &slashed)
            .last()
            .is_some_and(|own| self.own.contains(*own))
        {
            return Vec::new();
        }
        let folders = [""]
            .into_iter()
            .chain(self.folders.iter().map(String::as_str));
        let there = folders.filter_map(|folder| self.find(&self.resolve(folder, name)?));
        let mut seen = BTreeSet::new();
        there.filter(|place| seen.insert(*place)).collect()
    }

    /// A name as the path below the top, if it is one below `folder`.
    fn resolve(&self, folder: &str, name: &str) -> Option<String> {
        let top: Vec<&str> = self.top.iter().map(String::as_str).collect();
        let folder: Vec<&str> = [&*top, &folder.split_terminator('/').collect::<Vec<_>>()].concat();
        let name = slashed(name);
        let start = if name.starts_with('/') { &[] } else { &*folder };
        let path = led(start, &name);
        let is_below = path.len() > folder.len() && path.starts_with(&folder);
        is_below.then(|| path[top.len()..].join("/"))
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
        for called in [&file, &name] {
            let own = called.rsplit('/').next().unwrap_or(called);
            self.own.insert(own.to_owned());
        }
        self.folders.extend(above(&file).map(str::to_owned));
        let index = self.files.len();
        let best = self.by_name.get(&name).map(|other| self.files[*other].rank);
        if best.is_none_or(|best| rank < best) {
            self.by_name.insert(name, index);
        }
        self.by_file.insert(file.clone(), index);
        self.files.push(Listed { path, file, rank });
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
    let name = slashed(name);
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

/// The parts of a path that begins in a folder; nothing is above the root.
fn led<'a>(folder: &[&'a str], path: &'a str) -> Vec<&'a str> {
    let mut parts = folder.to_vec();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// With `/` between its parts.
fn slashed(path: &str) -> Cow<'_, str> {
    if cfg!(windows) {
        path.replace('\\', "/").into()
    } else {
        path.into()
    }
}

/// The parts of a folder's whole path as it is written: no link in it is followed.
fn written(folder: &Path) -> Vec<String> {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let whole = whole.to_string_lossy();
    led(&[], &slashed(&whole))
        .into_iter()
        .map(str::to_owned)
        .collect()
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
    fn names_that_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("embeddings");
        std::fs::create_dir_all(top.join("b/c")).unwrap();
        std::fs::create_dir_all(folder.path().join("embeddings2")).unwrap();
        for file in ["one", "b/two", "b/c/three", "../one", "../embeddings2/one"] {
            std::fs::write(top.join(format!("{file}.pt")), "").unwrap();
        }
        let listing = Listing::open(&top, &[".pt"]).unwrap();
        let whole = top.to_str().unwrap();
        let check = |name: &str, want: &[&str]| {
            let found = listing.find_anywhere(name).into_iter();
            let found: Vec<&str> = found.map(|place| listing.file(place)).collect();
            assert_eq!(found, want, "{name}");
        };
        for name in ["../embeddings/one", "x/../../embeddings/./one.pt"] {
            check(name, &["one.pt"]);
        }
        check("../b/two", &["b/two.pt"]);
        check("../c/three", &["b/c/three.pt"]);
        check("../../b/c/three", &["b/c/three.pt"]);
        check(&format!("/..{whole}/b/../one"), &["one.pt"]);
        for outside in [
            "../one",
            "../../one",
            "../embeddings2/one",
            "b/../../one",
            "/one",
        ] {
            check(outside, &[]);
        }
        for nothing in ["", ".", "..", "../embeddings", "../embeddings.pt/one"] {
            check(nothing, &[]);
        }
        check(&format!("{whole}2/one"), &[]);
        check(&format!("{whole}/../one"), &[]);
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
