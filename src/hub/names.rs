//! Names that come from outside, checked before any path or address is made of them.

use std::fmt;
use std::path::{Path, PathBuf};

use super::hub_error;
use crate::error::{Error, Result};

/// The hub's own limit on `owner/name` (`huggingface_hub`, `utils/_validators.py`, `REPO_ID_REGEX`).
const REPOSITORY_AT_MOST: usize = 96;
/// Longer than any branch or path seen; short enough for every file system.
const NAME_AT_MOST: usize = 200;

/// A repository on a model hub: `owner/name`, exactly two parts.
///
/// The rules are those of `huggingface_hub` (`utils/_validators.py`): letters, digits, `-`, `_` and
/// `.`; neither `--` nor `..`; no `-` or `.` at either end of a part.
///
/// ```
/// use sd_conditioner::hub::RepoId;
/// assert_eq!(RepoId::new("stabilityai/sd-turbo")?.as_str(), "stabilityai/sd-turbo");
/// assert!(RepoId::new("../sd-turbo").is_err());
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoId(String);

impl RepoId {
    /// Checks `owner/name`.
    pub fn new(text: &str) -> Result<RepoId> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = parts.len() == 2
            && text.len() <= REPOSITORY_AT_MOST
            && !text.contains("--")
            && !text.contains("..")
            && parts.iter().all(|part| {
                plain(part) && !part.starts_with(['-', '.']) && !part.ends_with(['-', '.'])
            });
        if good {
            Ok(RepoId(text.to_owned()))
        } else {
            Err(bad_repository(text))
        }
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder of the cache: `models--owner--name`.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, tag, pull-request reference (`refs/pr/1`) or 40-digit commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(String);

impl Revision {
    /// Checks a revision's name: parts of letters, digits, `-`, `_`, `.`, joined by `/`.
    pub fn new(text: &str) -> Result<Revision> {
        let good = text.len() <= NAME_AT_MOST
            && !text.contains("..")
            && text
                .split('/')
                .all(|part| plain(part) && !part.starts_with(['-', '.']));
        if good {
            Ok(Revision(text.to_owned()))
        } else {
            Err(bad_revision(text))
        }
    }

    /// The default branch.
    pub fn main() -> Revision {
        Revision("main".to_owned())
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a commit, which needs no `refs/` file to be found in a cache.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file inside a repository: a relative path with `/`, which never leaves the repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// Checks a path: no `.` or `..` part, nothing absolute, no character that an address would
    /// have to escape.
    pub fn new(text: &str) -> Result<FileName> {
        let good = text.len() <= NAME_AT_MOST
            && text
                .split('/')
                .all(|part| plain(part) && part != "." && part != "..");
        if good {
            Ok(FileName(text.to_owned()))
        } else {
            Err(bad_file(text))
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file below `folder`.
    pub(super) fn below(&self, folder: &Path) -> PathBuf {
        self.0
            .split('/')
            .fold(folder.to_owned(), |path, part| path.join(part))
    }

    /// How many folders lie between the repository's root and the file.
    #[cfg(all(feature = "hub", unix))]
    pub(super) fn depth(&self) -> usize {
        self.0.split('/').count() - 1
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sha256 as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sha256(String);

impl Sha256 {
    /// Checks the digits.
    pub fn new(text: &str) -> Result<Sha256> {
        if is_lower_hex(text, 64) {
            Ok(Sha256(text.to_owned()))
        } else {
            Err(bad_sha256(text))
        }
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A git commit: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    is_lower_hex(text, 40)
}

/// One part of a path, with nothing that a file system or an address reads specially.
pub(super) fn plain(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn bad_repository(text: &str) -> Error {
    hub_error(format!("`{}` is not the name of a repository", shown(text)))
        .hint("expected owner/name: two parts of letters, digits, `-`, `_` and `.`")
}

fn bad_revision(text: &str) -> Error {
    hub_error(format!("`{}` is not a revision", shown(text)))
        .hint("expected a branch, a tag or a commit of 40 hexadecimal digits, such as main")
}

fn bad_file(text: &str) -> Error {
    hub_error(format!("`{}` is not a file inside a repository", shown(text))).hint(
        "expected a relative path of letters, digits, `-`, `_` and `.`, such as text_encoder/model.safetensors",
    )
}

fn bad_sha256(text: &str) -> Error {
    hub_error(format!("`{}` is not a sha256", shown(text)))
        .hint("expected 64 lower-case hexadecimal digits")
}

/// Hostile text made fit for a message: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        format!("{short}…")
    } else {
        short
    }
}
