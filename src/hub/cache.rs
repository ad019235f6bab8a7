//! The hub's cache folder, read and never written: `refs/` → `snapshots/` → `blobs/`, as Python's
//! `huggingface_hub` and every version of the crate hf-hub lay it out.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::names::{FileName, RepoId, Revision, Sha256, is_commit, shown};
use super::{EncoderFile, Entry};

/// A `refs/` file holds 40 digits; nothing that is longer than this is one.
const REFERENCE_AT_MOST: u64 = 200;

/// A cache folder.
#[derive(Debug)]
pub(super) struct Cache<'a> {
    root: &'a Path,
}

/// What the cache says about a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its path under `snapshots/`.
    Found(PathBuf),
    /// Not there, and what was odd about it, if anything was.
    Absent(Option<String>),
}

/// Whether any repository of an entry has a file here, and what was odd if none has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Yes(PathBuf, RepoId),
    No(Option<String>),
}

impl Cache<'_> {
    /// The cache at `root`, which need not exist.
    pub(super) fn new(root: &Path) -> Cache<'_> {
        Cache { root }
    }

    /// The file under any name that the entry knows for it: the revisions of its repository and
    /// its mirrors, then any place with the very same bytes, removed repositories included.
    pub(super) fn find_anywhere(&self, entry: &Entry, file: &EncoderFile) -> Cached {
        let mut odd = None;
        for place in entry.places() {
            match self.find(place.repo, place.revision, &file.path) {
                Lookup::Found(path) => return Cached::Yes(path, place.repo.clone()),
                Lookup::Absent(note) => odd = odd.or(note),
            }
        }
        let Some(sha256) = &file.sha256 else {
            return Cached::No(odd);
        };
        for repo in entry.places().map(|place| place.repo).chain(&entry.former) {
            if let Some(path) = self.find_content(repo, &file.path, sha256) {
                return Cached::Yes(path, repo.clone());
            }
        }
        Cached::No(odd)
    }

    /// The file of this revision.
    pub(super) fn find(&self, repo: &RepoId, revision: &Revision, file: &FileName) -> Lookup {
        let folder = self.folder(repo);
        let commit = match commit_of(&folder, revision) {
            Ok(Some(commit)) => commit,
            Ok(None) => return Lookup::Absent(half_written(&folder)),
            Err(odd) => return Lookup::Absent(Some(odd)),
        };
        let path = file.below(&folder.join("snapshots").join(&commit));
        match state(&path) {
            State::File => Lookup::Found(path),
            State::Odd(odd) => Lookup::Absent(Some(odd)),
            State::Nothing if file.below(&folder.join(".no_exist").join(&commit)).exists() => {
                Lookup::Absent(Some(format!(
                    "the cache remembers that commit {commit} of {repo} has no {file}"
                )))
            }
            State::Nothing => Lookup::Absent(half_written(&folder)),
        }
    }

    /// The file of any revision whose blob is named after this checksum: blobs of large files are
    /// named by their sha256, so this is the very file, whatever the revision is called.
    fn find_content(&self, repo: &RepoId, file: &FileName, sha256: &Sha256) -> Option<PathBuf> {
        let snapshots = fs::read_dir(self.folder(repo).join("snapshots")).ok()?;
        let mut paths: Vec<PathBuf> = snapshots
            .flatten()
            .map(|snapshot| file.below(&snapshot.path()))
            .collect();
        paths.sort();
        paths.into_iter().find(|path| {
            let blob = fs::canonicalize(path).ok();
            blob.is_some_and(|blob| blob.is_file() && blob.ends_with(sha256.as_str()))
        })
    }

    /// `models--owner--name`.
    pub(super) fn folder(&self, repo: &RepoId) -> PathBuf {
        self.root.join(repo.folder())
    }
}

/// What lies at a path.
enum State {
    File,
    Nothing,
    Odd(String),
}

fn state(path: &Path) -> State {
    match (fs::symlink_metadata(path), fs::metadata(path)) {
        (_, Ok(found)) if found.is_file() => State::File,
        (_, Ok(_)) => State::Odd(format!("{} is not a file", path.display())),
        (Ok(link), Err(error)) if link.is_symlink() => State::Odd(format!(
            "{} is a link to {}, which is not there ({error}); delete the link",
            path.display(),
            fs::read_link(path).unwrap_or_default().display(),
        )),
        (Err(error), Err(_)) if error.kind() != io::ErrorKind::NotFound => {
            State::Odd(format!("{} cannot be read: {error}", path.display()))
        }
        (Ok(_) | Err(_), Err(_)) => State::Nothing,
    }
}

/// The commit that a revision stands for in this cache, `None` if the cache does not know it, or
/// what is wrong with its `refs/` file.
fn commit_of(folder: &Path, revision: &Revision) -> Result<Option<String>, String> {
    if revision.is_commit() {
        return Ok(Some(revision.as_str().to_owned()));
    }
    let path = folder.join("refs").join(revision.as_str());
    let failed = |error| format!("{} cannot be read: {error}", path.display());
    let Some(text) = beginning(&path).map_err(failed)? else {
        return Ok(None);
    };
    let commit = text.trim();
    if is_commit(commit) {
        return Ok(Some(commit.to_owned()));
    }
    let found = if commit.is_empty() {
        "is empty".to_owned()
    } else {
        format!("holds `{}`", shown(commit))
    };
    Err(format!(
        "{} {found} instead of a commit of 40 digits; delete it",
        path.display()
    ))
}

/// As much of a file as a reference may have; `None` where there is no file. A pipe, which would wait
/// for its writer, is not opened.
fn beginning(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(io::Error::other("it is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = fs::File::open(path)?;
    let mut text = Vec::new();
    file.take(REFERENCE_AT_MOST).read_to_end(&mut text)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// Names the trace of a download that another tool began and did not end.
fn half_written(folder: &Path) -> Option<String> {
    let mut parts: Vec<PathBuf> = fs::read_dir(folder.join("blobs"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending == "incomplete" || ending == "part")
        })
        .collect();
    parts.sort();
    Some(format!(
        "a download was begun and not ended: {}",
        parts.first()?.display()
    ))
}
