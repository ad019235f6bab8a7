//! A FILE THAT IS THERE WHOLE OR NOT AT ALL: filled beside its place under a name that nobody else has then, and moved
//! there. What a run that was killed left under such a name, the next one that writes the same file takes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Files that are being written in one place at once: threads and processes may save the same file.
const WRITERS: usize = 1000;

/// Bytes of a file's own name in that of the file beside it, which may be no longer than the system takes.
const NAME: usize = 200;

/// Runs `fill` on a file beside `path`, and moves it there if all went well. A link stays one: what it leads to is replaced.
pub(super) fn whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let io = |error| Error::io(path, error);
    let place = place(path)?;
    let (file, temporary) = beside(&place).map_err(|error| error.at_path(path))?;
    // Locked until it is moved or gone, so that nobody takes it before.
    let _lock = file.try_clone().map_err(io)?;
    let filled = (|| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        fs::rename(&temporary, &place).map_err(io)
    })();
    if filled.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    filled
}

/// Where the file belongs: what a link leads to. Pipes, devices and folders are not replaced.
fn place(path: &Path) -> Result<PathBuf> {
    let refused = |what: &str| {
        let message = format!("{what} is there, and a file is to be written; nothing was written");
        let error = Error::new(ErrorKind::Io, message).at_path(path);
        Err(error.hint("give the name of a file"))
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(Error::io(path, error)),
        Ok(there) if there.is_file() => Ok(path.to_owned()),
        Ok(there) if there.is_dir() => refused("a folder"),
        Ok(there) if there.is_symlink() => match fs::canonicalize(path) {
            Ok(target) if target.is_file() => Ok(target),
            _ => refused("a link that leads to no file"),
        },
        Ok(_) => refused("a pipe, a device or a socket"),
    }
}

/// An empty file in the same folder, so that moving it is one step, and its hidden name.
pub(super) fn beside(place: &Path) -> Result<(File, PathBuf)> {
    let Some(name) = place.file_name().map(OsStr::to_string_lossy) else {
        return Err(Error::new(
            ErrorKind::Io,
            "this cannot be the name of a file to write",
        ));
    };
    let ends = name.char_indices().map(|(at, sign)| at + sign.len_utf8());
    let name = &name[..ends.take_while(|end| *end <= NAME).last().unwrap_or(0)];
    for number in 0..WRITERS {
        let path = place.with_file_name(format!(".{name}.{number}.part"));
        // Told of the file that is wanted: nobody knows the other one.
        if let Some(file) = taken(&path).map_err(|error| Error::io(place, error))? {
            return Ok((file, path));
        }
    }
    let message = format!("{WRITERS} others are writing this file");
    Err(Error::new(ErrorKind::Io, message))
}

/// The file, emptied and locked; `None` while it is somebody else's.
fn taken(path: &Path) -> io::Result<Option<File>> {
    let (file, new) = match File::create_new(path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match left_behind(path) {
            Some(file) => (file, false),
            None => return Ok(None),
        },
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        // Where there are no locks, what was not there before is ours.
        Err(TryLockError::Error(_)) if new => {}
        Err(_) => return Ok(None),
    }
    // Whoever had it may have moved it to its place meanwhile.
    if !is_at(&file, path) {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// What is there already, if it is a file itself.
fn left_behind(path: &Path) -> Option<File> {
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    // It may have become a link or a pipe since.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NOFOLLOW | libc::O_NONBLOCK,
    );
    let file = options.open(path).ok()?;
    file.metadata()
        .is_ok_and(|there| there.is_file())
        .then_some(file)
}

/// Whether a path still names an opened file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |about: fs::Metadata| (about.dev(), about.ino());
    let there = fs::symlink_metadata(path).map(place);
    there.is_ok_and(|there| file.metadata().is_ok_and(|own| place(own) == there))
}

/// An open file is not removed there.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::thread;

    use super::*;

    fn put(path: &Path, bytes: &[u8]) -> Result<()> {
        whole(path, |file| {
            let written = file.write_all(bytes);
            written.map_err(|error| Error::io(path, error))
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn threads_may_write_one_file_and_each_reader_finds_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let long = vec![1; 300_000];
        put(&path, &long).unwrap();
        thread::scope(|scope| {
            for byte in 0..4_u8 {
                let path = &path;
                let bytes = vec![byte; 300_000 + usize::from(byte)];
                scope.spawn(move || (0..40).for_each(|_| put(path, &bytes).unwrap()));
            }
            for _ in 0..100 {
                let read = fs::read(&path).unwrap();
                assert!(read.len() >= 300_000 && read.iter().all(|byte| *byte == read[0]));
            }
        });
        assert_eq!(names(folder.path()), ["a.safetensors"]);
    }

    #[test]
    fn what_a_killed_run_left_is_taken_and_what_another_one_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(folder.path().join(".a.0.part"), "half of a longer one").unwrap();
        put(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["a"]);
        let (_held, other) = beside(&path).unwrap();
        put(&path, b"again").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), other.exists()),
            (b"again".to_vec(), true)
        );
        let failed = whole(&path, |_| Err(Error::new(ErrorKind::Io, "no")));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(names(folder.path()), [".a.0.part", "a"]);
    }

    #[test]
    fn errors_name_the_file_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere/a");
        assert_eq!(put(&path, b"1").unwrap_err().path(), Some(path.as_path()));
    }

    #[test]
    fn a_long_name_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "é".repeat(127)] {
            put(&folder.path().join(&name), b"1").unwrap();
            assert!(names(folder.path()).contains(&name));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_files_and_nothing_else_is_replaced() {
        use std::os::unix::fs::{FileTypeExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("real"), "before").unwrap();
        symlink(at("real"), at("link")).unwrap();
        put(&at("link"), b"behind").unwrap();
        assert_eq!(fs::read(at("real")).unwrap(), b"behind");
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink(at("socket"), at("to-socket")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        for name in ["socket", "to-socket", "dangling", "."] {
            let error = put(&at(name), b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("nothing was written"), "{error}");
        }
        assert!(
            fs::symlink_metadata(at("socket"))
                .unwrap()
                .file_type()
                .is_socket()
        );
        // Nor is a link followed that lies where the file beside it would.
        symlink(at("real"), at(".b.0.part")).unwrap();
        put(&at("b"), b"own").unwrap();
        assert_eq!(fs::read(at("real")).unwrap(), b"behind");
    }
}
