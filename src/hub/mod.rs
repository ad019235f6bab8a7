//! NAME → FILES. A name of `weights.toml` goes in; paths of whole and checked files on this machine
//! come out, from the hub's cache or, with the feature `hub`, from the hub.
//!
//! What this room promises:
//!
//! * Nothing is asked of the network when the cache has the file, and nothing at all when
//!   [`HubOptions::offline`] is set.
//! * A download becomes visible in the cache only after its size and its sha256 were compared: with
//!   those of the catalog, or else with those that the hub announces. A cached file's size is
//!   compared on each use.
//! * Every name is checked before a path or an address is made of it.
//! * The environment is read only through [`HubOptions::from_variables`]. (The HTTP client below the
//!   crate hf-hub looks up the usual proxy variables by itself.)
//!
//! The cache is shared with Python's `huggingface_hub`, whose layout it has.

mod cache;
mod catalog;
mod names;
mod options;
mod verify;
mod words;

#[cfg(feature = "hub")]
mod download;
#[cfg(not(feature = "hub"))]
mod no_download;

#[cfg(feature = "hub")]
use download::download;
#[cfg(not(feature = "hub"))]
use no_download::download;

pub use catalog::{Catalog, EncoderFile, Entry, Mirror};
pub use names::{FileName, RepoId, Revision, Sha256};
pub use options::{DEFAULT_ENDPOINT, DEFAULT_TIMEOUT, HubOptions};
pub use verify::to_delete;

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::weights::{Checkpoint, Family};
use cache::{Cache, Cached};
use words::{after, all_gone, offline};

/// A catalog, a cache, and perhaps a hub to fill the cache from.
///
/// ```
/// use sd_conditioner::hub::{Hub, HubOptions};
/// let folder = std::env::temp_dir().join("an-empty-cache");
/// let hub = Hub::new(HubOptions { cache_dir: Some(folder), offline: true, ..HubOptions::default() });
/// let error = hub.fetch("sd15", &mut |_| {}).unwrap_err();
/// assert!(error.to_string().contains("offline"));
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    options: HubOptions,
    catalog: Catalog,
    stop: Stop,
}

/// A checkpoint that is on this machine.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What kind of conditioning it makes.
    pub family: Family,
    /// One path for each of the entry's files, in its order.
    pub paths: Vec<PathBuf>,
    /// Where each of them came from.
    pub origins: Vec<Origin>,
}

/// Where a file came from.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache, under this repository; nothing was asked of the network.
    Cache(RepoId),
    /// It was downloaded from the entry's own repository.
    Repository(RepoId),
    /// It was downloaded from this mirror, because the entry's own repository is gone.
    Mirror(RepoId),
}

/// How far a file has come.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file, as its repository names it.
    pub file: &'a str,
    /// What is being done with it.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do, where that is known.
    pub total: Option<u64>,
}

/// What is being done with a file.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its bytes are on their way.
    Downloading,
    /// Its checksum is computed.
    Verifying,
}

/// Who hears how far a file has come, and may say that it is to come no farther.
struct Watch<'a> {
    progress: &'a mut dyn FnMut(Progress<'_>),
    stop: &'a Stop,
}

impl Watch<'_> {
    fn tell(&mut self, phase: Phase, file: &FileName, done: u64, total: Option<u64>) -> Result<()> {
        self.stop.check()?;
        (self.progress)(Progress {
            file: file.as_str(),
            phase,
            done,
            total,
        });
        Ok(())
    }
}

/// One place where a file may be.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    repo: &'a RepoId,
    revision: &'a Revision,
    rank: Rank,
}

/// What a place is to its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Own,
    Mirror,
}

/// Why a download did not happen.
#[derive(Debug)]
enum Failure {
    /// The repository, revision or file is missing, private, or removed: ask the next mirror.
    #[cfg_attr(
        not(feature = "hub"),
        expect(dead_code, reason = "only a download makes it")
    )]
    Gone(Error),
    /// Anything else, which a mirror would not mend.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error)
    }
}

impl Hub {
    /// A hub with the catalog that comes with this crate. Touches neither disk nor network.
    pub fn new(options: HubOptions) -> Hub {
        Hub::with_catalog(options, Catalog::published())
    }

    /// A hub with another catalog.
    pub fn with_catalog(options: HubOptions, catalog: Catalog) -> Hub {
        Hub {
            options,
            catalog,
            stop: Stop::default(),
        }
    }

    /// Gives up fetching ([`ErrorKind::Stopped`]) as soon as `asked` says so. It is asked between two
    /// parts of a file, and several times a second where a server or another process keeps us waiting; on
    /// the caller's thread. What has arrived stays beside the cache, and the next call goes on with it: of a
    /// server that has said nothing, as soon as its timeout is over, for so long the file is locked. Of several closures one is
    /// enough.
    #[must_use]
    pub fn stop_when(mut self, asked: impl Fn() -> bool + Send + Sync + 'static) -> Hub {
        self.stop.when(asked);
        self
    }

    /// Asks these closures, too.
    pub(crate) fn stopped_by(mut self, stop: &Stop) -> Hub {
        self.stop.join(stop);
        self
    }

    /// What it knows by name.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How it was set up.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }

    /// The files of the checkpoint of this name, downloaded if they are not in the cache.
    ///
    /// `progress` is called on the caller's thread. The download itself runs on a thread of its own,
    /// so that a server that says nothing more cannot hold the caller for longer than
    /// [`HubOptions::timeout`]; that thread ends with the call, or with its connection.
    pub fn fetch(&self, name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Fetched> {
        self.fetch_entry(self.catalog.get(name)?, progress)
    }

    /// The files of an entry, which need not be in the catalog.
    pub fn fetch_entry(
        &self,
        entry: &Entry,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Fetched> {
        let watch = &mut Watch {
            progress,
            stop: &self.stop,
        };
        let root = self.options.checked_cache()?;
        let mut fetched = Fetched {
            family: entry.family,
            paths: Vec::new(),
            origins: Vec::new(),
        };
        for file in &entry.files {
            let (path, origin) = match self.cached(&root, entry, file, watch)? {
                Cached::Yes(path, repo) => (path, Origin::Cache(repo)),
                Cached::No(_) if !self.options.offline => {
                    self.downloaded(&root, entry, file, watch)?
                }
                Cached::No(odd) => return Err(offline(&root, entry, file, odd)),
            };
            fetched.paths.push(path);
            fetched.origins.push(origin);
        }
        Ok(fetched)
    }

    fn cached(
        &self,
        root: &Path,
        entry: &Entry,
        file: &EncoderFile,
        watch: &mut Watch<'_>,
    ) -> Result<Cached> {
        let cached = Cache::new(root).find_anywhere(entry, file);
        if let Cached::Yes(path, _) = &cached {
            let compared = self.compare(path, file, watch);
            compared.map_err(|error| match error.kind() {
                ErrorKind::Stopped => error,
                _ => error.hint(verify::to_delete(path)),
            })?;
        }
        Ok(cached)
    }

    /// A cached file against the catalog: its size always, its checksum if that is wanted.
    fn compare(&self, path: &Path, file: &EncoderFile, watch: &mut Watch<'_>) -> Result<()> {
        if let Some(bytes) = file.bytes {
            verify::size(path, bytes)?;
        }
        match &file.sha256 {
            Some(sha256) if self.options.verify => verify::sha256(path, sha256, &mut |done| {
                watch.tell(Phase::Verifying, &file.path, done, file.bytes)
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks the repository, then its mirrors as long as each is gone.
    fn downloaded(
        &self,
        root: &Path,
        entry: &Entry,
        file: &EncoderFile,
        watch: &mut Watch<'_>,
    ) -> Result<(PathBuf, Origin)> {
        let mut gone = Vec::new();
        for place in entry.places() {
            match download(root, &self.options, place, file, watch) {
                Ok(path) if place.rank == Rank::Own => {
                    return Ok((path, Origin::Repository(place.repo.clone())));
                }
                Ok(path) => return Ok((path, Origin::Mirror(place.repo.clone()))),
                Err(Failure::Gone(error)) => gone.push(error),
                Err(Failure::Failed(error)) => return Err(after(&gone, error)),
            }
        }
        Err(all_gone(entry, gone))
    }
}

impl Fetched {
    /// Reads the headers of its files, in their order. The error for a damaged one says what to
    /// delete from the cache.
    pub fn open(&self) -> Result<Vec<Checkpoint>> {
        let opened = self.paths.iter().map(Checkpoint::open);
        let opened: Result<Vec<Checkpoint>> = opened.collect();
        opened.map_err(|error| self.name_what_to_delete(error))
    }

    /// An error about one of its files, with what to delete so that the file is fetched afresh, if
    /// its bytes are what is wrong.
    pub fn name_what_to_delete(&self, error: Error) -> Error {
        let ours = error
            .path()
            .and_then(|path| self.paths.iter().find(|ours| *ours == path));
        let damaged = matches!(
            error.kind(),
            ErrorKind::FileFormat
                | ErrorKind::UnknownLayout
                | ErrorKind::MissingTensor
                | ErrorKind::TensorShape
                | ErrorKind::TensorValue
        );
        match ours.filter(|_| damaged) {
            Some(path) => verify::damaged(path, error),
            None => error,
        }
    }
}

impl Entry {
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let own = Place {
            repo: &self.repo,
            revision: &self.revision,
            rank: Rank::Own,
        };
        std::iter::once(own).chain(self.mirrors.iter().map(|mirror| Place {
            repo: &mirror.repo,
            revision: &mirror.revision,
            rank: Rank::Mirror,
        }))
    }
}

fn hub_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Hub, message)
}
