//! Opening files that may be anything.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// A regular file and its length. What is no file (a folder, a pipe, a device) is never opened:
/// a pipe would wait for its writer.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let io = |error| Error::io(path, error);
    let is_file = std::fs::metadata(path)
        .map_err(|error| dangling(path).unwrap_or_else(|| io(error)))?
        .is_file();
    if !is_file {
        let message = "this is not a file (a folder, a pipe, a socket or a device)";
        return Err(Error::new(ErrorKind::FileFormat, message)
            .at_path(path)
            .hint("give a file, or the folder of a whole model"));
    }
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    Ok((file, length))
}

/// True if anything has this name, a link that leads nowhere too: what was meant to be there must not be
/// taken for absent.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The error of a link to what is not there.
fn dangling(path: &Path) -> Option<Error> {
    let target = std::fs::read_link(path).ok()?;
    let error = std::fs::metadata(path).err()?;
    let message = format!("a link to {}, which cannot be reached", target.display());
    let error = Error::new(ErrorKind::Io, message).because(error);
    Some(
        error
            .at_path(path)
            .hint("delete the link, or download the file again"),
    )
}

/// Everything in a regular file.
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    let mut bytes = Vec::new();
    let read = file.take(length).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path, error))?;
    Ok(bytes)
}
