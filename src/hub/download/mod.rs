//! REPOSITORY, FILE → FILE IN THE CACHE. The crate hf-hub brings the bytes into a folder beside the
//! cache's own; only what was compared is moved into the cache.
//!
//! Why not straight into the cache: hf-hub 0.5.0 compares neither size nor checksum before a file
//! is visible to every other tool. Why not on the caller's thread: it has no timeouts and a few
//! assertions ([`transfer`]).

mod address;
mod failure;
mod publish;
mod transfer;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cache::{Cache, Lookup};
use super::names::Sha256;
use super::{EncoderFile, Failure, HubOptions, Phase, Place, Watch, hub_error, verify};
use crate::error::{Error, ErrorKind, Result};
use failure::Broken;
use publish::publish;
use transfer::{Arrived, Job};

/// Between two looks at a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// Before a broken transfer is taken up again; grows with each time.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Downloads, compares, and moves into the cache.
pub(super) fn download(
    root: &Path,
    options: &HubOptions,
    place: Place<'_>,
    file: &EncoderFile,
    watch: &mut Watch<'_>,
) -> Result<PathBuf, Failure> {
    let folder = Cache::new(root).folder(place.repo);
    let staging = folder.join(".sd-conditioner");
    let job = job(options, place, file, &staging)?;
    let lock = Lock::take(root, place, options.timeout, watch)?;
    if let (true, Some(path)) = (lock.waited, meanwhile(root, place, file)) {
        return Ok(path);
    }
    fs::create_dir_all(&staging).map_err(|error| writing(&staging, error))?;
    let result = transferred(job, options, watch).and_then(|arrived| {
        let path = kept(&arrived, &folder, place, file, watch);
        if !path.as_ref().is_err_and(is_stop) {
            let _ = fs::remove_dir_all(&staging);
        }
        Ok(path?)
    });
    // Empty folders would be all that is left of a repository that is gone.
    let _ = fs::remove_dir(&staging);
    let _ = fs::remove_dir(&folder);
    result
}

fn job(options: &HubOptions, place: Place<'_>, file: &EncoderFile, staging: &Path) -> Result<Job> {
    Ok(Job {
        endpoint: address::endpoint(options)?,
        token: address::token(options)?,
        staging: staging.to_owned(),
        repo: place.repo.clone(),
        revision: place.revision.clone(),
        file: file.path.clone(),
        bytes: file.bytes,
    })
}

/// Compares what arrived, and moves it into the cache.
fn kept(
    arrived: &Arrived,
    folder: &Path,
    place: Place<'_>,
    file: &EncoderFile,
    watch: &mut Watch<'_>,
) -> Result<PathBuf> {
    compare(arrived, file, watch).map_err(|error| {
        if is_stop(&error) {
            error
        } else {
            damaged(&error, place)
        }
    })?;
    publish(folder, place.revision, &file.path, arrived)
}

/// What another process fetched while this one waited for the lock.
fn meanwhile(root: &Path, place: Place<'_>, file: &EncoderFile) -> Option<PathBuf> {
    let Lookup::Found(path) = Cache::new(root).find(place.repo, place.revision, &file.path) else {
        return None;
    };
    let fits = file
        .bytes
        .is_none_or(|bytes| verify::size(&path, bytes).is_ok());
    fits.then_some(path)
}

/// Brings the bytes, taking a broken transfer up again as often as is allowed.
///
/// The token is sent only where the hub refuses without it: hf-hub 0.5.0 sends it on to whatever
/// host the hub redirects to, so public files had better be fetched without it.
fn transferred(
    mut job: Job,
    options: &HubOptions,
    watch: &mut Watch<'_>,
) -> Result<Arrived, Failure> {
    let mut attempts = Attempts::of(&mut job, options);
    loop {
        match transfer::run(&job, options.timeout, watch) {
            Ok(arrived) => return Ok(arrived),
            Err(broken) => attempts.prepare_next(&mut job, broken)?,
        }
        sleep(RETRY_AFTER * attempts.broken);
    }
}

/// What may still be tried of one transfer.
struct Attempts {
    /// Not sent yet.
    token: Option<String>,
    /// How often the transfer was taken up again after it broke, and how often that is allowed.
    broken: u32,
    most: u32,
}

impl Attempts {
    /// The first is made without the token.
    fn of(job: &mut Job, options: &HubOptions) -> Attempts {
        Attempts {
            token: job.token.take(),
            broken: 0,
            most: options.retries,
        }
    }

    /// Makes the job ready to be tried again, or gives the failure that is left.
    fn prepare_next(&mut self, job: &mut Job, broken: Broken) -> Result<(), Failure> {
        let again = self.broken < self.most;
        match broken {
            Broken::Gone(_) | Broken::Crowded(_) if self.token.is_some() => {
                job.token = self.token.take();
            }
            Broken::Gone(error) => return Err(Failure::Gone(error)),
            Broken::Transient(_) if again => self.broken += 1,
            Broken::Stale(error) => {
                let _ = fs::remove_dir_all(&job.staging);
                if !again {
                    return Err(Failure::Failed(error));
                }
                self.broken += 1;
            }
            Broken::Transient(error) | Broken::Crowded(error) | Broken::Failed(error) => {
                return Err(Failure::Failed(error));
            }
        }
        Ok(())
    }
}

/// Size and checksum, those of the catalog before those of the hub.
fn compare(arrived: &Arrived, file: &EncoderFile, watch: &mut Watch<'_>) -> Result<()> {
    let bytes = file.bytes.unwrap_or(arrived.bytes);
    verify::size(&arrived.blob, bytes)?;
    // The hub's etag is the sha256 of a large file, and something else for a small one.
    let announced = Sha256::new(&arrived.etag).ok();
    let Some(wanted) = file.sha256.as_ref().or(announced.as_ref()) else {
        return Ok(());
    };
    verify::sha256(&arrived.blob, wanted, &mut |done| {
        watch.tell(Phase::Verifying, &file.path, done, Some(bytes))
    })
}

fn is_stop(error: &Error) -> bool {
    error.kind() == ErrorKind::Stopped
}

fn damaged(error: &Error, place: Place<'_>) -> Error {
    let what = format!(
        "what {} sent is wrong: {}; nothing of it was kept",
        place.repo,
        error.message()
    );
    Error::new(error.kind(), what)
        .hint("fetch again; if it comes out the same, the repository or a proxy changed the file")
}

/// One download at a time from a repository, on this machine.
struct Lock {
    /// Whether another process held it.
    waited: bool,
    _file: File,
}

impl Lock {
    fn take(root: &Path, place: Place<'_>, patience: Duration, watch: &Watch<'_>) -> Result<Lock> {
        let folder = root.join(".locks").join(place.repo.folder());
        let path = folder.join("sd-conditioner.lock");
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Lock {
            waited: lock_or_wait(&file, &path, (place, patience), watch)?,
            _file: file,
        })
    }
}

/// Waits until no other process holds the lock; true if one did. Where the file system has no locks,
/// none is waited for.
fn lock_or_wait(
    file: &File,
    path: &Path,
    (place, patience): (Place<'_>, Duration),
    watch: &Watch<'_>,
) -> Result<bool> {
    let start = Instant::now();
    let mut waited = false;
    loop {
        watch.stop.check()?;
        match file.try_lock() {
            Ok(()) => return Ok(waited),
            Err(TryLockError::WouldBlock) if start.elapsed() > patience => {
                return Err(busy(path, place, patience));
            }
            Err(TryLockError::WouldBlock) => sleep(LOCK_INTERVAL),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(waited);
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(path, error)),
        }
        waited = true;
    }
}

fn busy(path: &Path, place: Place<'_>, patience: Duration) -> Error {
    hub_error(format!(
        "another process has been downloading from {} for longer than {} s",
        place.repo,
        patience.as_secs_f32()
    ))
    .at_path(path)
    .hint("wait for it and try again")
}

/// A failed write in the cache, with what is most likely behind it.
fn writing(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the cache directory must be writable; choose another with HF_HUB_CACHE"
        }
        _ => "this happened while the cache was written",
    };
    let error = Error::io(path, error).hint(hint);
    debug_assert_eq!(error.kind(), ErrorKind::Io);
    error
}
