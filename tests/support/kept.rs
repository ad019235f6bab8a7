//! Folders for what a process makes once and keeps in a static, which nothing drops. They lie in cargo's folder
//! for tests; what a process has left there, the next one removes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The file whose lock says that the folder around it is in use.
const IN_USE: &str = "in-use";

/// A folder that this process uses.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: TempDir,
    _in_use: File,
}

impl Kept {
    /// A new and empty one below `name`.
    pub(crate) fn new(name: &str) -> Kept {
        Kept::below(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn below(all: &Path) -> Kept {
        fs::create_dir_all(all).unwrap();
        let turn = File::create(all.join("turn")).unwrap();
        turn.lock().unwrap();
        for entry in fs::read_dir(all).unwrap() {
            let path = entry.unwrap().path();
            let in_use = File::open(path.join(IN_USE));
            let in_use = in_use.is_ok_and(|file| file.try_lock().is_err());
            if path.is_dir() && !in_use {
                fs::remove_dir_all(path).unwrap();
            }
        }
        let folder = tempfile::tempdir_in(all).unwrap();
        let in_use = File::create(folder.path().join(IN_USE)).unwrap();
        in_use.lock().unwrap();
        fs::create_dir(folder.path().join("made")).unwrap();
        Kept {
            folder,
            _in_use: in_use,
        }
    }

    /// Where to put what is made.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("made")
    }
}

#[test]
fn what_a_process_has_left_is_removed_and_nothing_else() {
    let all = tempfile::tempdir().unwrap();
    let living = Kept::below(all.path());
    let mut ended = Kept::below(all.path());
    ended.folder.disable_cleanup(true);
    let left = ended.path();
    drop(ended);
    assert!(left.is_dir() && living.path().is_dir());
    let next = Kept::below(all.path());
    assert!(!left.exists() && living.path().is_dir() && next.path().is_dir());
}
