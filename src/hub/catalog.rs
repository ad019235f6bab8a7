//! `weights.toml`: what is published, under which name, where, and what it should be.

use serde::Deserialize;

use super::hub_error;
use super::names::{FileName, RepoId, Revision, Sha256, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{EncoderId, Family};

/// The catalog that is compiled in.
const PUBLISHED: &str = include_str!("../../weights.toml");

/// Checkpoints known by name.
///
/// ```
/// use sd_conditioner::{Family, hub::Catalog};
/// let catalog = Catalog::published();
/// assert_eq!(catalog.get("sdxl")?.family, Family::Sdxl);
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<Entry>,
}

/// One checkpoint of a [`Catalog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What a person types: `sd15`, `sdxl`.
    pub name: String,
    /// What kind of conditioning it makes.
    pub family: Family,
    /// Under which terms the weights are published, where that is known.
    pub licence: Option<String>,
    /// The repository asked first.
    pub repo: RepoId,
    /// The revision asked for there.
    pub revision: Revision,
    /// Asked in this order when the repository is gone.
    pub mirrors: Vec<Mirror>,
    /// Removed repositories. They are never asked, but an old cache may still hold their files.
    pub former: Vec<RepoId>,
    /// The files that together hold the family's encoders, in the family's order.
    pub files: Vec<EncoderFile>,
    /// What a person should know.
    pub notes: Option<String>,
}

/// Another place with the same files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The repository.
    pub repo: RepoId,
    /// Its revision: commits differ from those of the original.
    pub revision: Revision,
}

/// A file with text encoders in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderFile {
    /// The encoders it holds.
    pub encoders: Vec<EncoderId>,
    /// Where it lies in the repository.
    pub path: FileName,
    /// How long it is, where that is known.
    pub bytes: Option<u64>,
    /// Its checksum, where that is known.
    pub sha256: Option<Sha256>,
}

impl Catalog {
    /// The catalog that comes with this crate.
    ///
    /// # Panics
    ///
    /// Never, unless this crate was built from a broken `weights.toml`; a test reads it.
    pub fn published() -> Catalog {
        Catalog::parse(PUBLISHED).expect("weights.toml is read by this crate's tests")
    }

    /// Reads another catalog, written like `weights.toml`.
    pub fn parse(text: &str) -> Result<Catalog> {
        let raw: RawCatalog = toml::from_str(text)
            .map_err(|error| broken(error.to_string().trim_end()).because(error))?;
        let mut entries: Vec<Entry> = Vec::with_capacity(raw.checkpoint.len());
        for checkpoint in raw.checkpoint {
            let entry = checkpoint.checked()?;
            if entries.iter().any(|other| other.name == entry.name) {
                return Err(broken(&format!("`{}` is there twice", shown(&entry.name))));
            }
            entries.push(entry);
        }
        Ok(Catalog { entries })
    }

    /// All entries, as the file orders them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Result<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| {
                let names: Vec<&str> = self
                    .entries
                    .iter()
                    .map(|entry| entry.name.as_str())
                    .collect();
                hub_error(format!(
                    "no checkpoint is known by the name `{}`",
                    shown(name)
                ))
                .hint(format!("known names: {}", names.join(", ")))
            })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalog {
    #[serde(default)]
    checkpoint: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    family: String,
    licence: Option<String>,
    repo: String,
    revision: Option<String>,
    #[serde(default)]
    mirrors: Vec<RawMirror>,
    #[serde(default)]
    former: Vec<String>,
    files: Vec<RawFile>,
    notes: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMirror {
    repo: String,
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    encoders: Vec<String>,
    path: String,
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl RawEntry {
    fn checked(self) -> Result<Entry> {
        let family = self.family()?;
        let files = self.files_of(family)?;
        let mirrors = self.mirrors.iter().map(RawMirror::checked);
        let former = self.former.iter().map(|repo| RepoId::new(repo));
        Ok(Entry {
            repo: RepoId::new(&self.repo)?,
            revision: revision(self.revision.as_deref())?,
            mirrors: mirrors.collect::<Result<_>>()?,
            former: former.collect::<Result<_>>()?,
            name: self.name,
            family,
            licence: self.licence,
            files,
            notes: self.notes,
        })
    }

    fn family(&self) -> Result<Family> {
        self.family.parse().map_err(|_| {
            let (name, family) = (shown(&self.name), shown(&self.family));
            broken(&format!("`{name}`: unknown family `{family}`"))
        })
    }

    /// The files, which together hold the family's encoders.
    fn files_of(&self, family: Family) -> Result<Vec<EncoderFile>> {
        let files = self.files.iter().map(RawFile::checked);
        let files: Vec<EncoderFile> = files.collect::<Result<_>>()?;
        let held = files.iter().flat_map(|file| file.encoders.clone());
        let held: Vec<EncoderId> = held.collect();
        if held != family.encoders() {
            return Err(broken(&format!(
                "`{}`: the files hold [{}], and {family} needs [{}]",
                shown(&self.name),
                tags(&held),
                tags(family.encoders())
            )));
        }
        Ok(files)
    }
}

impl RawMirror {
    fn checked(&self) -> Result<Mirror> {
        Ok(Mirror {
            repo: RepoId::new(&self.repo)?,
            revision: revision(self.revision.as_deref())?,
        })
    }
}

impl RawFile {
    fn checked(&self) -> Result<EncoderFile> {
        Ok(EncoderFile {
            encoders: self
                .encoders
                .iter()
                .map(|tag| encoder(tag))
                .collect::<Result<_>>()?,
            path: FileName::new(&self.path)?,
            bytes: self.bytes,
            sha256: self.sha256.as_deref().map(Sha256::new).transpose()?,
        })
    }
}

fn revision(text: Option<&str>) -> Result<Revision> {
    text.map_or_else(|| Ok(Revision::main()), Revision::new)
}

fn encoder(tag: &str) -> Result<EncoderId> {
    [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG]
        .into_iter()
        .find(|encoder| encoder.tag() == tag)
        .ok_or_else(|| broken(&format!("unknown encoder `{}`", shown(tag))))
}

fn tags(encoders: &[EncoderId]) -> String {
    encoders
        .iter()
        .map(|encoder| encoder.tag())
        .collect::<Vec<_>>()
        .join(", ")
}

fn broken(what: &str) -> Error {
    Error::new(
        ErrorKind::FileFormat,
        format!("the catalog of checkpoints is broken: {what}"),
    )
    .hint("it is written like weights.toml at the top of this crate")
}
