//! A FILE OR FOLDER THAT APPEARS WHOLE WHERE NOTHING WAS: made beside its place under a name that nobody else has then, and
//! moved there. What a run that was killed left under such a name, the next one that writes to the same place removes.

use std::fs;
use std::path::{Path, PathBuf};

use super::whole;
use crate::error::{Error, ErrorKind, Result};

/// An error if anything has this name.
pub(crate) fn expect_nothing(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Io, "this exists already; nothing was written");
    Err(error
        .at_path(path)
        .hint("give another name, or remove it first"))
}

/// Runs `make` on a path where nothing is, and moves what it made there to `path` if all went well and nothing came there
/// meanwhile. Else nothing of it stays, and what others have is left as it is.
pub(crate) fn appearing<T>(path: &Path, make: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let parent = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
    // An empty file that is locked: whoever has it has the place beside it.
    let (lock, name) = whole::beside(path).map_err(|error| error.at_path(path))?;
    let place = place(&name);
    let made = cleared(&place).and_then(|()| make(&place));
    // Told of the place that is wanted: nobody knows the other one.
    let made = made.map_err(|error| error.told_of(&place, path));
    let moved = made.and_then(|made| {
        expect_nothing(path)?;
        fs::rename(&place, path).map_err(|error| Error::io(path, error))?;
        Ok(made)
    });
    if moved.is_err() {
        // The first error is the one to tell.
        let _ = cleared(&place);
    }
    let _ = fs::remove_file(&name);
    drop(lock);
    moved
}

/// The place of whoever has the lock of this name.
fn place(lock: &Path) -> PathBuf {
    lock.with_extension("parts")
}

/// Removes what is there, if anything is. Links are not followed.
fn cleared(place: &Path) -> Result<()> {
    let Ok(there) = fs::symlink_metadata(place) else {
        return Ok(());
    };
    let removed = if there.is_dir() {
        fs::remove_dir_all(place)
    } else {
        fs::remove_file(place)
    };
    removed.map_err(|error| Error::io(place, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path, text: &str) -> Result<()> {
        fs::create_dir(folder).map_err(|error| Error::io(folder, error))?;
        let file = folder.join("file");
        fs::write(&file, text).map_err(|error| Error::io(&file, error))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_another_one_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for half in [".out.0.part", ".out.0.parts/half", ".out.1.parts/other"] {
            let half = folder.path().join(half);
            fs::create_dir_all(half.parent().unwrap()).unwrap();
            fs::write(half, "half").unwrap();
        }
        let (held, _) = whole::beside(&path).unwrap();
        appearing(&path, |folder| filled(folder, "second")).unwrap();
        assert_eq!(
            names(folder.path()),
            [".out.0.part", ".out.0.parts", "out"],
            "the first place is somebody's, the second was nobody's"
        );
        assert_eq!(names(&path), ["file"]);
        fs::remove_dir_all(&path).unwrap();
        drop(held);
        appearing(&path, |folder| filled(folder, "third")).unwrap();
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(fs::read(path.join("file")).unwrap(), b"third");
    }

    #[test]
    fn what_came_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/out");
        let late = appearing(&path, |folder| {
            filled(folder, "ours")?;
            fs::create_dir(&path).unwrap();
            Ok(())
        });
        assert!(late.unwrap_err().to_string().contains("exists already"));
        assert_eq!(names(path.parent().unwrap()), ["out"]);
        assert!(names(&path).is_empty());
    }

    #[test]
    fn errors_name_the_file_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        for (made, told) in [("", out.clone()), ("a/b", out.join("a/b"))] {
            let failed: Result<()> = appearing(&out, |place| {
                let path = Path::new(made).components();
                let path = path.fold(place.to_owned(), |all, part| all.join(part));
                Err(Error::new(ErrorKind::Io, "full").at_path(path))
            });
            assert_eq!(failed.unwrap_err().path(), Some(&*told));
        }
    }

    #[test]
    fn an_error_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let failed: Result<()> = appearing(&folder.path().join("out"), |folder| {
            filled(folder, "half")?;
            Err(Error::new(ErrorKind::TensorValue, "no"))
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::TensorValue);
        assert!(names(folder.path()).is_empty());
    }
}
