//! Numbers, texts and values of a GGUF header, one after the other, never more than there are.

use std::io::{self, Read};

use super::broken;
use crate::error::{Error, ErrorKind, Result};

/// The longest name and text that is kept; the format allows names of 64 bytes, writers do not care.
const MAX_TEXT: u64 = 1 << 16;

/// How deep arrays may be nested; the format has no more than one.
const MAX_DEPTH: usize = 4;

/// How long lengths are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 32 bits.
    One,
    /// 64 bits.
    Later,
}

/// A bounded reader.
pub(super) struct Source<R> {
    inner: R,
    position: u64,
    left: u64,
    pub(super) version: Version,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R, length: u64) -> Source<R> {
        Source {
            inner,
            position: 0,
            left: length,
            version: Version::Later,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length or a count.
    pub(super) fn count(&mut self) -> Result<u64> {
        match self.version {
            Version::One => self.u32().map(u64::from),
            Version::Later => self.array().map(u64::from_le_bytes),
        }
    }

    /// A key or a name.
    pub(super) fn text(&mut self) -> Result<String> {
        let length = self.count()?;
        if length > MAX_TEXT {
            return Err(broken(&format!("a name of {length} bytes")));
        }
        self.claim(length)?;
        let mut bytes = Vec::new();
        let read = (&mut self.inner).take(length).read_to_end(&mut bytes);
        read.map_err(failed)?;
        String::from_utf8(bytes).map_err(|_| broken("a name that is not UTF-8"))
    }

    /// A value of a whole type.
    pub(super) fn whole_number(&mut self, kind: u32) -> Result<u64> {
        let number = match kind {
            0 | 7 => i128::from(self.array::<1>()?[0]),
            1 => i128::from(i8::from_le_bytes(self.array()?)),
            2 => i128::from(u16::from_le_bytes(self.array()?)),
            3 => i128::from(i16::from_le_bytes(self.array()?)),
            4 => i128::from(u32::from_le_bytes(self.array()?)),
            5 => i128::from(i32::from_le_bytes(self.array()?)),
            10 => i128::from(u64::from_le_bytes(self.array()?)),
            11 => i128::from(i64::from_le_bytes(self.array()?)),
            _ => {
                return Err(broken(&format!(
                    "a value of type {kind}, not a whole number"
                )));
            }
        };
        u64::try_from(number).map_err(|_| broken(&format!("the number {number} below zero")))
    }

    /// An array of at most `most` whole numbers.
    pub(super) fn whole_numbers(&mut self, kind: u32, most: u64) -> Result<Vec<usize>> {
        if kind != 9 {
            return Err(broken(&format!("a value of type {kind}, not an array")));
        }
        let (kind, count) = (self.u32()?, self.count()?);
        if count > most {
            return Err(broken(&format!(
                "{count} dimensions; at most {most} are known"
            )));
        }
        let numbers = (0..count).map(|_| {
            let number = usize::try_from(self.whole_number(kind)?);
            number.map_err(|_| broken("a side that no memory holds"))
        });
        numbers.collect()
    }

    /// Passes over a value.
    pub(super) fn skip_value(&mut self, kind: u32) -> Result<()> {
        self.skip_nested(kind, 0)
    }

    fn skip_nested(&mut self, kind: u32, depth: usize) -> Result<()> {
        if let Some(size) = size_of(kind) {
            return self.skip(size);
        }
        match kind {
            8 => {
                let length = self.count()?;
                self.skip(length)
            }
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.count()?);
                match size_of(kind) {
                    Some(size) => self.skip(count.saturating_mul(size)),
                    None => (0..count).try_for_each(|_| self.skip_nested(kind, depth + 1)),
                }
            }
            9 => Err(broken(&format!("arrays nested deeper than {MAX_DEPTH}"))),
            _ => Err(broken(&format!("metadata of the unknown type {kind}"))),
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.claim(length)?;
        let skipped = io::copy(&mut (&mut self.inner).take(length), &mut io::sink());
        if skipped.map_err(failed)? == length {
            Ok(())
        } else {
            Err(ends())
        }
    }

    /// Checks a length against what is left, before anything is read or allocated.
    fn claim(&mut self, length: u64) -> Result<()> {
        let Some(left) = self.left.checked_sub(length) else {
            let (at, left) = (self.position, self.left);
            let message = format!("at byte {at} {length} bytes are announced, {left} are left");
            return Err(broken(&message).hint("incomplete download?"));
        };
        self.left = left;
        self.position += length;
        Ok(())
    }
}

/// Bytes of a value of a type that has a size: integers, floats and bools.
fn size_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ends(),
        _ => Error::new(ErrorKind::Io, error.to_string()).because(error),
    }
}

fn ends() -> Error {
    broken("it ends within its header").hint("incomplete download?")
}
