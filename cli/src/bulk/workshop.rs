//! A hidden folder for files that are not finished, inside the folder that is written to. One run at a
//! time has it; what a killed run has left in it is removed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// No id begins with a dot.
const LOCK: &str = ".lock";

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
        fs::create_dir_all(&folder).with_context(shown)?;
        if !fs::symlink_metadata(&folder).with_context(shown)?.is_dir() {
            bail!("{}: a link is in the way; remove it", shown());
        }
        let lock = File::create(folder.join(LOCK)).with_context(shown)?;
        // Where there are no locks nobody is kept out.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!(
                "{}: another run is writing there; wait for it, or choose another --out-dir, or shares \
                 of the lines with --shard",
                shown()
            );
        }
        empty(&folder).with_context(shown)?;
        let lock = Some(lock);
        Ok(Workshop { folder, lock })
    }

    /// Where a file of this name is made.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Some systems remove no open file. What stays is removed by the next run.
        self.lock = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
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
        let error = second.err().unwrap().to_string();
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

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_emptied() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("precious"), b"data").unwrap();
        let link = folder.path().join(".embeddings.unfinished");
        std::os::unix::fs::symlink(other.path(), link).unwrap();
        let error = Workshop::open(folder.path(), "embeddings").err().unwrap();
        assert!(error.to_string().contains("a link is in the way"));
        assert!(other.path().join("precious").exists());
    }
}
