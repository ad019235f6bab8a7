//! What a driver or library says, as this crate's error.

use crate::error::{Error, ErrorKind, Result};

/// Names what was tried when a call of CUDA failed.
pub(super) trait Tried<T> {
    fn tried(self, what: &str) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Tried<T> for Result<T, E> {
    fn tried(self, what: &str) -> Result<T> {
        self.map_err(|error| {
            device_error(format!("CUDA could not {what}: {error:?}")).because(error)
        })
    }
}

pub(super) fn device_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Device, message)
}
