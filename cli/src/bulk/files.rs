//! A file for each request. Files are made in the workshop, many at a time: their bytes are brought to the
//! disk together, then each is moved to its name. So a file that has its name is whole, whatever ends
//! the run, and a disk that takes long to confirm is waited for once a group.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use super::trouble::{Trouble, is_crowded};
use super::workshop::Workshop;
use crate::inputs::Inputs;
use crate::output;

/// Files of a group, which are open until it is settled.
const FILES_AT_MOST: usize = 128;

/// Bytes of a group.
const BYTES_AT_MOST: u64 = 64 << 20;

/// Files that are waited for at a time. A file system answers those that wait together by one commit.
const WAITERS: usize = 32;

/// A folder of files, and the group that is being made.
pub(super) struct Files {
    folder: PathBuf,
    workshop: Workshop,
    inputs: Inputs,
    group: Vec<Begun>,
    bytes: u64,
    /// Files of a group; fewer where the system opens no more.
    at_most: usize,
    /// What became of files that were settled before anybody asked, because the system opened no more.
    settled: Vec<Result<(), Trouble>>,
}

/// A file in the workshop.
struct Begun {
    name: String,
    file: File,
}

impl Files {
    /// Files of a folder and its workshop.
    pub(super) fn new(folder: &Path, workshop: Workshop, inputs: Inputs) -> Files {
        Files {
            folder: folder.to_owned(),
            workshop,
            inputs,
            group: Vec::new(),
            bytes: 0,
            at_most: FILES_AT_MOST,
            settled: Vec::new(),
        }
    }

    /// Makes a file of these bytes.
    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
        self.make(name, &mut &*bytes)
    }

    /// Makes a file of the bytes of another one, which may be in the group.
    pub(super) fn copy(&mut self, name: &str, other: &str) -> Result<(), Trouble> {
        let mut path = self.place_of(other);
        let mut source = File::open(&path);
        if source.as_ref().is_err_and(is_crowded) && self.make_room() {
            path = self.place_of(other);
            source = File::open(&path);
        }
        match source {
            Ok(mut source) => self.make(name, &mut source),
            Err(error) if is_crowded(&error) => Err(Trouble::of_file(error, &path)),
            Err(error) => Err(Trouble::Line(anyhow::Error::new(error).context(format!(
                "asks for the same as a line before, and {} cannot be read",
                path.display()
            )))),
        }
    }

    /// Where a file is until the group is settled, or else.
    fn place_of(&self, name: &str) -> PathBuf {
        if self.group.iter().any(|begun| begun.name == name) {
            self.workshop.path(name)
        } else {
            self.folder.join(name)
        }
    }

    fn make<R: io::Read + ?Sized>(&mut self, name: &str, source: &mut R) -> Result<(), Trouble> {
        let place = self.folder.join(name);
        let free = output::expect_file(&place).and_then(|()| self.inputs.spare(&place));
        free.map_err(Trouble::Line)?;
        let path = self.workshop.path(name);
        let mut file = File::create_new(&path);
        if file.as_ref().is_err_and(is_crowded) && self.make_room() {
            file = File::create_new(&path);
        }
        let mut file = file.map_err(|error| Trouble::of_folder(error, &path))?;
        match io::copy(source, &mut file) {
            Ok(bytes) => {
                self.bytes += bytes;
                let name = name.to_owned();
                self.group.push(Begun { name, file });
                Ok(())
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = fs::remove_file(&path);
                Err(Trouble::of_file(error, &path))
            }
        }
    }

    /// Closes the files of the group, and leaves room for those of other threads from now on. False if
    /// there are none to close.
    fn make_room(&mut self) -> bool {
        if self.group.is_empty() {
            return false;
        }
        self.at_most = (self.group.len() / 2).max(1);
        let settled = self.settle_group(&File::sync_all);
        self.settled.extend(settled);
        true
    }

    /// Whether the group is to be settled before more is put into it.
    pub(super) fn is_full(&self) -> bool {
        self.group.len() >= self.at_most || self.bytes >= BYTES_AT_MOST
    }

    /// Gives the files of the group their names, once their bytes are on the disk. Says what became of
    /// each, in order.
    pub(super) fn settle(&mut self) -> Vec<Result<(), Trouble>> {
        self.settle_by(File::sync_all)
    }

    fn settle_by(
        &mut self,
        sync: impl Fn(&File) -> io::Result<()> + Sync,
    ) -> Vec<Result<(), Trouble>> {
        let now = self.settle_group(&sync);
        let mut all = std::mem::take(&mut self.settled);
        all.extend(now);
        all
    }

    fn settle_group(
        &mut self,
        sync: &(impl Fn(&File) -> io::Result<()> + Sync),
    ) -> Vec<Result<(), Trouble>> {
        self.bytes = 0;
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return Vec::new();
        }
        let synced = synced(&group, sync);
        let names = group.into_iter().map(|begun| begun.name);
        let moved = names.zip(synced).map(|(name, synced)| {
            let (from, to) = (self.workshop.path(&name), self.folder.join(&name));
            synced
                .and_then(|()| fs::rename(&from, &to))
                .map_err(|error| {
                    let _ = fs::remove_file(&from);
                    Trouble::of_file(error, &to)
                })
        });
        let moved = moved.collect();
        sync_folder(&self.folder);
        moved
    }
}

/// Waits for the bytes of all files.
fn synced(
    group: &[Begun],
    sync: &(impl Fn(&File) -> io::Result<()> + Sync),
) -> Vec<io::Result<()>> {
    let some = |files: &[Begun]| -> Vec<io::Result<()>> {
        files.iter().map(|begun| sync(&begun.file)).collect()
    };
    let broken = || io::Error::other("a thread of this program broke down");
    thread::scope(|scope| {
        let parts = group.chunks(group.len().div_ceil(WAITERS).max(1));
        let waiters = parts.map(|files| {
            let waiter = thread::Builder::new().spawn_scoped(scope, || some(files));
            // Where no thread can be had, this one waits.
            (files.len(), waiter.map_err(|_| some(files)))
        });
        let waiters: Vec<_> = waiters.collect();
        let each = waiters.into_iter().flat_map(|(count, waiter)| {
            let failed = |_| (0..count).map(|_| Err(broken())).collect();
            match waiter {
                Ok(waiter) => waiter.join().unwrap_or_else(failed),
                Err(done) => done,
            }
        });
        each.collect()
    })
}

/// Brings the names of a folder's files to the disk, where the system can. A name that is lost is made
/// anew.
pub(super) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn files(folder: &Path) -> Files {
        let workshop = Workshop::open(folder, "embeddings").unwrap();
        Files::new(folder, workshop, Inputs::default())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    #[test]
    fn no_file_has_its_name_before_all_of_the_group_are_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        for number in 0..100 {
            files.put(&format!("{number}"), &[number; 10]).unwrap();
        }
        files.copy("copy", "7").unwrap();
        let asked = AtomicUsize::new(0);
        let done = files.settle_by(|file| {
            assert!(names(folder.path()).is_empty());
            asked.fetch_add(1, Ordering::Relaxed);
            file.sync_all()
        });
        assert_eq!((done.len(), asked.into_inner()), (101, 101));
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(names(folder.path()).len(), 101);
        for (name, byte) in [("0", 0), ("99", 99), ("copy", 7)] {
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), [byte; 10]);
        }
        assert!(files.settle().is_empty());
        // One that has its name already can be copied, too.
        files.copy("later", "copy").unwrap();
        assert!(files.settle()[0].is_ok());
        assert_eq!(fs::read(folder.path().join("later")).unwrap(), [7; 10]);
    }

    #[test]
    fn a_file_that_the_disk_refuses_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        for (name, bytes) in [("a", &b"1"[..]), ("b", b"22"), ("c", b"3")] {
            files.put(name, bytes).unwrap();
        }
        let done = files.settle_by(|file| match file.metadata()?.len() {
            2 => Err(io::Error::other("a bad sector")),
            _ => Ok(()),
        });
        let said = |trouble: &Trouble| matches!(trouble, Trouble::Line(error) if format!("{error:#}").contains("a bad sector"));
        assert!(done[0].is_ok() && done[1].as_ref().is_err_and(said) && done[2].is_ok());
        assert_eq!(names(folder.path()), ["a", "c"]);
        assert!(!files.workshop.path("b").exists());
        let error = files.copy("d", "b").unwrap_err();
        assert!(matches!(error, Trouble::Line(_)), "{error:?}");
        // The place of one that failed can be taken again.
        files.put("b", b"4").unwrap();
        assert!(files.settle()[0].is_ok());
    }

    /// A kill between any two steps leaves whole files or none.
    #[test]
    fn a_group_that_was_not_settled_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        files.put("a", b"whole").unwrap();
        drop(files);
        assert!(names(folder.path()).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn groups_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        for number in 0..FILES_AT_MOST {
            assert!(!files.is_full());
            files.put(&number.to_string(), b"").unwrap();
        }
        assert!(files.is_full());
        files.settle();
        assert!(!files.is_full());
        let large = vec![0; usize::try_from(BYTES_AT_MOST).unwrap()];
        files.put("large", &large).unwrap();
        assert!(files.is_full());
    }

    /// A folder that is gone or full is no line's fault.
    #[test]
    fn what_is_wrong_with_the_folder_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        fs::remove_dir_all(folder.path()).unwrap();
        let error = files.put("a", b"1").unwrap_err();
        assert!(matches!(error, Trouble::Run(_)), "{error:?}");
    }
}
