//! Bytes of a pickle, one after the other, never more than there are.

use std::io::{self, Read};

use super::{broken, io as failed};
use crate::error::{Error, Result};

/// The longest pickle that is read. That of a whole checkpoint has less than one megabyte; tensors
/// lie outside it.
const MAX_PICKLE: u64 = 64 << 20;

/// The longest text; real ones are names and configurations.
const MAX_TEXT: u64 = 1 << 20;

/// A bounded reader.
pub(super) struct Source<R> {
    inner: R,
    position: u64,
    left: u64,
}

impl<R: Read> Source<R> {
    /// At most `length` bytes of `inner`.
    pub(super) fn new(inner: R, length: u64) -> Source<R> {
        let left = length.min(MAX_PICKLE);
        Source {
            inner,
            position: 0,
            left,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.inner
            .read_exact(&mut bytes)
            .map_err(|error| self.short(error))?;
        Ok(bytes)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A length of 1, 2, 4 or 8 bytes.
    pub(super) fn length<const N: usize>(&mut self) -> Result<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        Ok(u64::from_le_bytes(wide))
    }

    /// The next `length` bytes as text. Python writes lone surrogates too; they become `U+FFFD`.
    pub(super) fn text(&mut self, length: u64) -> Result<String> {
        if length > MAX_TEXT {
            let message = format!("a text of {length} bytes; at most {MAX_TEXT} are read");
            return Err(self.here(&message));
        }
        self.claim(length)?;
        let mut bytes = Vec::new();
        let inner = &mut self.inner;
        let read = inner.take(length).read_to_end(&mut bytes);
        read.map_err(|error| self.short(error))?;
        if bytes.len() as u64 != length {
            return Err(self.ends());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The rest of a line, without its end.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                byte if (bytes.len() as u64) < MAX_TEXT => bytes.push(byte),
                _ => return Err(self.here("a line without an end")),
            }
        }
    }

    /// Passes over bytes whose value no one needs.
    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        self.claim(length)?;
        let inner = &mut self.inner;
        let skipped = io::copy(&mut inner.take(length), &mut io::sink());
        let skipped = skipped.map_err(|error| self.short(error))?;
        if skipped == length {
            Ok(())
        } else {
            Err(self.ends())
        }
    }

    /// An error that says where.
    pub(super) fn here(&self, message: &str) -> Error {
        broken(format!("the pickle at byte {}: {message}", self.position))
    }

    /// Checks a length against what is left, before anything is read or allocated.
    fn claim(&mut self, length: u64) -> Result<()> {
        let Some(left) = self.left.checked_sub(length) else {
            let left = self.left;
            let message = format!("{length} bytes are announced, {left} are left");
            return Err(self.here(&message).hint("incomplete download?"));
        };
        self.left = left;
        self.position += length;
        Ok(())
    }

    fn short(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.ends(),
            _ => failed(error),
        }
    }

    fn ends(&self) -> Error {
        self.here("the file ends within it")
            .hint("incomplete download?")
    }
}
