//! The zip archives of `torch.save` since version 1.6: `<top>/data.pkl`, and each storage as an
//! entry `<top>/data/<key>`, not compressed (`_save` in `torch/serialization.py`).
//!
//! Only the directory at the archive's end is read, and of each entry that is needed its own header.
//! Format: PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::source::Source;
use super::value::Storage;
use super::{Contents, broken, io, legacy, machine, place, refused, tree, unsupported};
use crate::error::{Error, Result};

/// The end record without its comment, and the longest comment.
const END: usize = 22;
const MAX_COMMENT: u64 = 0xffff;

/// The longest directory that is read; that of a checkpoint has about 100 kB.
const MAX_DIRECTORY: u64 = 64 << 20;

/// What stands in a 32-bit field whose value is in the 64-bit record.
const ELSEWHERE: u64 = 0xffff_ffff;

/// One entry of the directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    method: u16,
    encrypted: bool,
    packed: u64,
    size: u64,
    header: u64,
}

impl Entry {
    fn refuse_packed(&self, name: &str) -> Result<()> {
        if !self.encrypted && self.method == 0 && self.packed == self.size {
            return Ok(());
        }
        let how = if self.encrypted {
            "encrypted"
        } else {
            "compressed"
        };
        let message = format!("the entry `{name}` is {how}; torch.save writes plain entries");
        Err(refused(message).hint("unpack it and zip it without compression"))
    }
}

pub(super) fn read(file: &mut File, length: u64) -> Result<Contents> {
    let mut archive = Zip::open(file, length)?;
    let top = archive.top()?;
    archive.byte_order(&top)?;
    let (start, size) = archive.place(&format!("{top}data.pkl"))?;
    archive.file.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut source = Source::new(BufReader::new(&mut *archive.file), size);
    let built = machine::run(&mut source)?;
    drop(source);
    let found = tree::find(&built)?;
    let mut places = BTreeMap::new();
    let locate = |storage: &Storage| {
        if let Some(place) = places.get(&storage.key) {
            return Ok(*place);
        }
        let place = archive.place(&format!("{top}data/{}", storage.key))?;
        places.insert(storage.key.clone(), place);
        Ok(place)
    };
    let announced = place::all(&found, length, locate)?;
    archive.refuse_overlaps()?;
    Ok((announced, found.notes))
}

struct Zip<'a> {
    file: &'a mut File,
    length: u64,
    entries: BTreeMap<String, Entry>,
    /// Entries that were asked for: first byte, the one behind the last, name.
    taken: Vec<(u64, u64, String)>,
}

impl<'a> Zip<'a> {
    fn open(file: &'a mut File, length: u64) -> Result<Zip<'a>> {
        let Directory { count, size, start } = directory(file, length)?;
        let inside = start.checked_add(size).is_some_and(|end| end <= length);
        if !inside || size > MAX_DIRECTORY || count > size / 46 {
            return Err(damaged("its directory lies outside the file"));
        }
        let bytes = read_at(file, start, size)?;
        let mut archive = Zip {
            file,
            length,
            entries: BTreeMap::new(),
            taken: Vec::new(),
        };
        let mut rest = bytes.as_slice();
        for _ in 0..count {
            let (name, entry, after) =
                entry(rest).ok_or_else(|| damaged("its directory is broken"))?;
            if archive.entries.insert(name.clone(), entry).is_some() {
                return Err(damaged(&format!("the entry `{name}` is there twice")));
            }
            rest = after;
        }
        Ok(archive)
    }

    /// The folder of everything, with a slash, or nothing if there is none.
    fn top(&self) -> Result<String> {
        let names = self.entries.keys();
        let tops = names.filter_map(|name| name.strip_suffix("data.pkl"));
        let tops: Vec<_> = tops
            .filter(|top| top.is_empty() || top.find('/') == Some(top.len() - 1))
            .collect();
        let [top] = tops.as_slice() else {
            let message = format!("{} entries named data.pkl, expected one", tops.len());
            return Err(broken(message));
        };
        let script = |name: &String| {
            let below = name.strip_prefix(top);
            below.is_some_and(|below| below == "constants.pkl" || below.starts_with("code/"))
        };
        if self.entries.keys().any(script) {
            return Err(unsupported(
                "this is a TorchScript archive, which is not supported",
            ));
        }
        Ok((*top).to_owned())
    }

    fn byte_order(&mut self, top: &str) -> Result<()> {
        let name = format!("{top}byteorder");
        if !self.entries.contains_key(&name) {
            return Ok(());
        }
        let (start, size) = self.place(&name)?;
        let order = read_at(self.file, start, size.min(16))?;
        match order.trim_ascii() {
            b"little" => Ok(()),
            b"big" => Err(legacy::big_endian()),
            _ => Err(damaged("it names a byte order that is not known")),
        }
    }

    /// Where the bytes of an entry are, and how many.
    fn place(&mut self, name: &str) -> Result<(u64, u64)> {
        let Some(entry) = self.entries.get(name).copied() else {
            return Err(damaged(&format!("the entry `{name}` is missing")));
        };
        entry.refuse_packed(name)?;
        let start = entry.header + self.header_length(&entry, name)?;
        let end = start.checked_add(entry.size);
        let Some(end) = end.filter(|end| *end <= self.length) else {
            return Err(outside(name));
        };
        self.taken.push((entry.header, end, name.to_owned()));
        Ok((start, entry.size))
    }

    /// Bytes of the header that stands before an entry's data. It must be about this entry.
    fn header_length(&mut self, entry: &Entry, name: &str) -> Result<u64> {
        let fixed = 30 + name.len() as u64;
        let end = entry.header.checked_add(fixed);
        if end.is_none_or(|end| end > self.length) {
            return Err(outside(name));
        }
        let header = read_at(self.file, entry.header, fixed)?;
        let (name_length, extra) = (u16_at(&header, 26), u16_at(&header, 28));
        let (Some(name_length), Some(extra), true) =
            (name_length, extra, header.starts_with(b"PK\x03\x04"))
        else {
            return Err(damaged(&format!("the entry `{name}` has no header")));
        };
        if usize::from(name_length) != name.len() || header.get(30..) != Some(name.as_bytes()) {
            let message = format!("the entry `{name}` has another name in its own header");
            return Err(damaged(&message));
        }
        Ok(fixed + u64::from(extra))
    }

    /// Entries that share bytes were made to look larger than the file is, or to hide something.
    fn refuse_overlaps(&mut self) -> Result<()> {
        self.taken.sort();
        let pairs = self.taken.iter().zip(self.taken.iter().skip(1));
        for ((_, end, first), (start, _, second)) in pairs {
            if start < end {
                let message = format!("the entries `{first}` and `{second}` overlap");
                return Err(damaged(&message));
            }
        }
        Ok(())
    }
}

/// The directory's place, from the end record or its 64-bit twin.
fn directory(file: &mut File, length: u64) -> Result<Directory> {
    let tail = length.min(END as u64 + MAX_COMMENT);
    let bytes = read_at(file, length - tail, tail)?;
    let Some(end) = end_record(&bytes) else {
        return Err(damaged("it has no directory").hint("incomplete download?"));
    };
    let Some(directory) = Directory::narrow(&bytes[end..]) else {
        return Err(damaged("its end is broken"));
    };
    if directory.is_whole() {
        return Ok(directory);
    }
    let wide = wide_record(&bytes[..end]);
    let Some(wide) = wide.filter(|at| at.checked_add(56).is_some_and(|end| end <= length)) else {
        return Ok(directory);
    };
    let record = read_at(file, wide, 56)?;
    Directory::wide(&record).ok_or_else(|| damaged("its 64-bit end is broken"))
}

/// Where the directory is, and how many entries it has.
#[derive(Clone, Copy, Debug)]
struct Directory {
    count: u64,
    size: u64,
    start: u64,
}

impl Directory {
    fn narrow(record: &[u8]) -> Option<Directory> {
        Some(Directory {
            count: u16_at(record, 10)?.into(),
            size: u32_at(record, 12)?,
            start: u32_at(record, 16)?,
        })
    }

    /// False if a field is in the 64-bit record.
    fn is_whole(self) -> bool {
        self.count != 0xffff && self.size != ELSEWHERE && self.start != ELSEWHERE
    }

    fn wide(record: &[u8]) -> Option<Directory> {
        if !record.starts_with(b"PK\x06\x06") {
            return None;
        }
        Some(Directory {
            count: u64_at(record, 32)?,
            size: u64_at(record, 40)?,
            start: u64_at(record, 48)?,
        })
    }
}

/// Where the end record is in the last bytes of a file: the last that its comment fits to.
fn end_record(bytes: &[u8]) -> Option<usize> {
    let is_end = |at: &usize| {
        let comment = u16_at(bytes, at + 20).map(usize::from);
        bytes[*at..].starts_with(b"PK\x05\x06") && comment == Some(bytes.len() - at - END)
    };
    let last = bytes.len().checked_sub(END)?;
    (0..=last).rev().find(is_end)
}

/// Where the 64-bit end record is in the file, as the locator says that may stand last in `before`.
fn wide_record(before: &[u8]) -> Option<u64> {
    let locator = before.get(before.len().checked_sub(20)?..)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return None;
    }
    u64_at(locator, 8)
}

/// One entry of the directory: name, facts, and what follows.
fn entry(bytes: &[u8]) -> Option<(String, Entry, &[u8])> {
    if !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(bytes, at).map(usize::from));
    let (name, extra, comment) = (46 + name?, extra?, comment?);
    let mut wide = wide(bytes.get(name..name + extra)?);
    let mut field = |at| wide_or_narrow(u32_at(bytes, at)?, &mut wide);
    // The order in which the 64-bit fields stand.
    let (size, packed, header) = (field(24)?, field(20)?, field(42)?);
    let entry = Entry {
        method: u16_at(bytes, 10)?,
        encrypted: u16_at(bytes, 8)? & 1 == 1,
        packed,
        size,
        header,
    };
    let text = String::from_utf8_lossy(bytes.get(46..name)?).into_owned();
    Some((text, entry, bytes.get(name + extra + comment..)?))
}

/// A field's value: the next of the `wide` ones if it stands there.
fn wide_or_narrow(narrow: u64, wide: &mut &[u8]) -> Option<u64> {
    if narrow != ELSEWHERE {
        return Some(narrow);
    }
    let (value, rest) = wide.split_first_chunk::<8>()?;
    *wide = rest;
    Some(u64::from_le_bytes(*value))
}

/// The 64-bit fields among an entry's extra ones.
fn wide(mut extra: &[u8]) -> &[u8] {
    while let (Some(tag), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = 4 + usize::from(length);
        if tag == 1 {
            return extra.get(4..end).unwrap_or(&[]);
        }
        extra = extra.get(end..).unwrap_or(&[]);
    }
    &[]
}

/// Bytes at a place; the caller has checked that the file has so many.
fn read_at(file: &mut File, start: u64, count: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start)).map_err(io)?;
    file.take(count).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*two))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*four).into())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*eight))
}

fn outside(name: &str) -> Error {
    damaged(&format!("the entry `{name}` lies outside the file"))
}

fn damaged(what: &str) -> Error {
    broken(format!(
        "this PyTorch file (a zip archive) is damaged: {what}"
    ))
}
