//! A FILE THAT MANY THREADS READ, each at a place of its own.

use std::fs::File;
use std::io;

use memmap2::Mmap;

use crate::mapped::{self, Unchanging};

/// An open file. Reading moves nothing that another reader sees.
#[derive(Debug)]
pub(super) struct Positioned {
    file: File,
    /// Elsewhere a place is sought before it is read.
    #[cfg(not(any(unix, windows)))]
    turn: std::sync::Mutex<()>,
}

impl From<File> for Positioned {
    fn from(file: File) -> Positioned {
        Positioned {
            file,
            #[cfg(not(any(unix, windows)))]
            turn: std::sync::Mutex::default(),
        }
    }
}

impl Positioned {
    /// All of it in memory.
    pub(super) fn map(&self, word: Unchanging) -> io::Result<Mmap> {
        mapped::map(&self.file, word)
    }

    /// Fills `bytes` from byte `start` of the file on.
    #[cfg(unix)]
    pub(super) fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, start)
    }

    /// Fills `bytes` from byte `start` of the file on.
    #[cfg(windows)]
    pub(super) fn read(&self, mut start: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::os::windows::fs::FileExt::seek_read(&self.file, bytes, start)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            start += count as u64;
            bytes = &mut bytes[count..];
        }
        Ok(())
    }

    /// Fills `bytes` from byte `start` of the file on.
    #[cfg(not(any(unix, windows)))]
    pub(super) fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let _turn = self.turn.lock();
        (&self.file).seek(SeekFrom::Start(start))?;
        (&self.file).read_exact(bytes)
    }
}
