//! Waiting for a file to change.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

/// How often the file is looked at.
const PAUSE: Duration = Duration::from_millis(300);

/// A file that is looked at now and then.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<(u64, SystemTime)>,
}

impl Watched {
    /// The file as it is now.
    pub(super) fn new(path: &Path) -> Watched {
        Watched {
            path: path.to_owned(),
            seen: state(path),
        }
    }

    /// Returns when the file is there and is not what it was.
    pub(super) fn wait(&mut self) {
        loop {
            thread::sleep(PAUSE);
            let now = state(&self.path);
            if now.is_some() && now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Length and time; `None` while it is not there, as editors have it for a moment.
fn state(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}
