//! A hidden folder for files that are not finished, inside the folder that is written to. One run at a
//! time has it; what a killed run has left in it is removed.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// No id begins with a dot.
const LOCK: &str = ".lock";

/// How often a workshop is made anew that others remove meanwhile.
const ATTEMPTS: usize = 1000;

/// The folder, until it is dropped.
#[derive(Debug)]
pub(super) struct Workshop {
    folder: PathBuf,
    /// Held open, which keeps others out.
    lock: Option<File>,
}

impl Workshop {
    /// Opens and empties the workshop of the runs that call their files `stem`.
    pub(super) fn open(folder: &Path, stem: &str) -> Result<Workshop> {
        let folder = folder.join(format!(".{stem}.unfinished"));
        let shown = || folder.display().to_string();
        let mut attempts = 1..ATTEMPTS;
        loop {
            let others = attempts.next().is_some();
            match locked(&folder) {
                Ok(Some(lock)) => {
                    empty(&folder).with_context(shown)?;
                    let lock = Some(lock);
                    return Ok(Workshop { folder, lock });
                }
                // A run that ended took it away in between.
                Ok(None) if others => (),
                Err(error) if others && is_passing(&error) => (),
                Ok(None) => bail!("{}: other runs remove it all the time", shown()),
                Err(error) => return Err(error.context(shown())),
            }
        }
    }

    /// Where a file of this name is made.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // While it is ours: whoever comes next makes another one. What stays is removed by the next run.
        let removed = empty(&self.folder).and_then(|()| remove(&self.folder));
        self.lock = None;
        // Some systems remove no open file.
        if removed.is_err() && !cfg!(unix) {
            let _ = remove(&self.folder);
        }
    }
}

/// Makes the folder and locks it. `None` if what was locked is not in the folder any more.
fn locked(folder: &Path) -> Result<Option<File>> {
    fs::create_dir_all(folder)?;
    if !fs::symlink_metadata(folder)?.is_dir() {
        bail!("a link is in the way; remove it");
    }
    let path = folder.join(LOCK);
    let lock = File::create(&path)?;
    // Where there are no locks nobody is kept out.
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        bail!(
            "another run is writing there; wait for it, or choose another --out-dir, or shares of the \
             lines with --shard"
        );
    }
    Ok(is_at(&lock, &path)?.then_some(lock))
}

/// Whether a path still names an opened file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (own, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// An open file is not removed there.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> std::io::Result<bool> {
    Ok(path.exists())
}

/// Whether a folder that comes and goes gives such an error.
fn is_passing(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let kind = io.map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::NotFound | ErrorKind::AlreadyExists))
}

/// Removes the lock, and the folder if nobody has begun to use it again.
fn remove(folder: &Path) -> std::io::Result<()> {
    fs::remove_file(folder.join(LOCK))?;
    fs::remove_dir(folder)
}

fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != LOCK {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_has_it_and_finds_nothing_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let first = Workshop::open(folder.path(), "embeddings").unwrap();
        fs::write(first.path("a"), b"half").unwrap();
        let second = Workshop::open(folder.path(), "embeddings");
        let error = format!("{:#}", second.err().unwrap());
        assert!(error.contains("another run is writing there"), "{error}");
        assert!(first.path("a").exists());
        // Runs of other shares have places of their own.
        assert!(Workshop::open(folder.path(), "embeddings-1-of-2").is_ok());
        // A kill runs no destructor, and ends the lock.
        let mut killed = first;
        killed.lock = None;
        let next = Workshop::open(folder.path(), "embeddings").unwrap();
        assert!(!next.path("a").exists());
        std::mem::forget(killed);
        drop(next);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Runs that begin while others end: one at a time has it, and only that is a reason to fail.
    #[test]
    fn runs_that_overlap_take_nothing_from_each_other() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (inside, had) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (folder, inside, had) = (folder.path(), &inside, &had);
                scope.spawn(move || {
                    for _ in 0..500 {
                        match Workshop::open(folder, "embeddings") {
                            Ok(workshop) => {
                                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                                let path = workshop.path(&number.to_string());
                                fs::write(&path, b"half").unwrap();
                                assert_eq!(fs::read(&path).unwrap(), b"half");
                                had.fetch_add(1, Ordering::SeqCst);
                                inside.fetch_sub(1, Ordering::SeqCst);
                            }
                            Err(error) => {
                                let error = format!("{error:#}");
                                assert!(error.contains("another run is writing"), "{error}");
                            }
                        }
                    }
                });
            }
        });
        assert!(had.into_inner() > 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_emptied() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("precious"), b"data").unwrap();
        let link = folder.path().join(".embeddings.unfinished");
        std::os::unix::fs::symlink(other.path(), link).unwrap();
        let error = Workshop::open(folder.path(), "embeddings").err().unwrap();
        assert!(format!("{error:#}").contains("a link is in the way"));
        assert!(other.path().join("precious").exists());
    }
}
