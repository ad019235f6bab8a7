//! Asks the caller whether long work shall go on: goes in between two parts of it, comes out as an error.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Closures that are asked; one that says yes is enough. They are called on the thread of the call.
#[derive(Clone, Default)]
pub(crate) struct Stop(Vec<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Asks one more.
    pub(crate) fn when(&mut self, asked: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.push(Arc::new(asked));
    }

    /// Asks those of another one, too.
    pub(crate) fn join(&mut self, other: &Stop) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_given(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.iter().any(|asked| asked())
    }

    /// An error if the work is to stop here.
    pub(crate) fn check(&self) -> Result<()> {
        check(&|| self.is_asked())
    }
}

/// The same for a closure that was only lent.
pub(crate) fn check(asked: &dyn Fn() -> bool) -> Result<()> {
    if !asked() {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Stopped,
        "stopped, because the caller asked for it",
    );
    Err(error.hint("call again to start anew; a download goes on where it stopped"))
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stop({} closures)", self.0.len())
    }
}
