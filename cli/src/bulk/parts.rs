//! One packed file while it grows.
//!
//! A safetensors file begins with its header, which is known when the last tensor is. So a part begins
//! with room for it, tensors follow as they come, and a journal beside the part says which. When the
//! part is full the header is written, blanks fill its room (the format allows that), and the file is
//! moved to its name. After a kill the journal tells how much of the part counts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{
    self, BufRead, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sd_conditioner::tokens::CONTEXT;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::sync_folder;
use super::found::unread;
use super::header::{Header, Names};
use crate::scribe::Metadata;

/// What a kill costs at most, in time and in bytes of the journal.
const UNSAFE_FOR: Duration = Duration::from_secs(5);
const UNSAFE_AT_MOST: usize = 4 << 20;

/// Of the length of the header.
const DIGITS: u64 = 8;

/// Readers refuse headers of more than 100 million bytes.
const HEADER_AT_MOST: u64 = 64 << 20;

/// Bytes by which what a file says of a request is longer than what it says of the first, on an average.
const WORDS: u64 = 256;

/// Of a journal; a request is at most a few MiB.
const LINE_AT_MOST: u64 = HEADER_AT_MOST;

/// A request with tensors in a packed file, and a line of the journal.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    pub(super) id: String,
    /// Name, type and shape, in the order in which they lie.
    pub(super) tensors: Vec<(String, String, Vec<usize>)>,
    /// Bytes of all tensors.
    pub(super) n_bytes: u64,
    /// What the file says of it.
    pub(super) said: BTreeMap<String, String>,
}

/// The first line of the journal.
#[derive(Debug, Deserialize, Serialize)]
struct Head {
    room: u64,
    facts: Metadata,
}

/// Where a part and its journal lie, and what it will be called.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) whole: PathBuf,
    pub(super) part: PathBuf,
    pub(super) journal: PathBuf,
}

/// A part that grows.
pub(super) struct Part {
    paths: Paths,
    data: BufWriter<File>,
    journal: File,
    /// Bytes kept for the header.
    room: u64,
    /// Bytes of tensors.
    length: u64,
    header: Header,
    /// Lines for the journal, whose tensors may not be on the disk yet.
    pending: Vec<u8>,
    since: Instant,
}

/// Bytes of one tensor.
pub(super) fn n_bytes(dtype: &str, shape: &[usize]) -> Result<u64> {
    let each: u64 = match dtype {
        "F32" => 4,
        "F16" | "BF16" => 2,
        other => bail!("values of type {other} are not packed"),
    };
    let sizes = shape.iter().map(|size| *size as u64);
    let count = sizes.into_iter().try_fold(each, u64::checked_mul);
    count.with_context(|| format!("a tensor of shape {shape:?}"))
}

impl Entry {
    /// Bytes of a prompt of the same kind in a single window, for others may be shorter than this one.
    fn least_bytes(&self) -> u64 {
        let windows = |(_, _, shape): &(_, _, Vec<usize>)| match shape[..] {
            [_, rows, _] => rows / CONTEXT,
            _ => 1,
        };
        let most = self.tensors.iter().map(windows).max().unwrap_or(1);
        self.n_bytes / (most as u64).max(1)
    }
}

impl Part {
    /// Begins a part with room for the header of as many entries like this one as fit into `size` bytes.
    pub(super) fn new(paths: Paths, facts: &Metadata, size: u64, first: &Entry) -> Result<Part> {
        let header = Header::new(facts)?;
        let mut like = Header::new(facts)?;
        like.add(first, size)?;
        let each = like.length() - header.length();
        let count = size / first.least_bytes().max(1) + 1;
        let likely = (each + WORDS).saturating_mul(count);
        let needed = like.length() + each + 4096;
        let room = likely.min(HEADER_AT_MOST).max(needed).next_multiple_of(8);
        let failed = || paths.part.display().to_string();
        let mut data = File::create(&paths.part).with_context(failed)?;
        data.seek(SeekFrom::Start(DIGITS + room))
            .with_context(failed)?;
        let mut journal = File::create(&paths.journal).with_context(failed)?;
        let facts = facts.clone();
        writeln!(journal, "{}", serde_json::to_string(&Head { room, facts })?)?;
        Ok(Part::of(paths, (data, journal), room, header))
    }

    fn of(paths: Paths, (data, journal): (File, File), room: u64, header: Header) -> Part {
        Part {
            paths,
            data: BufWriter::with_capacity(1 << 20, data),
            journal,
            room,
            length: 0,
            header,
            pending: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Goes on with a part that was left behind, as far as its journal is good. Returns what it holds.
    pub(super) fn reopen(paths: Paths, facts: &Metadata) -> Result<Option<(Part, Vec<Entry>)>> {
        let failed = || paths.part.display().to_string();
        let Some((journal, data)) = left_behind(&paths)? else {
            return Ok(None);
        };
        let Some((head, entries, good)) = replay(journal, data.metadata()?.len())? else {
            return Ok(None);
        };
        if head.facts != *facts {
            bail!("{}: {OTHER_RUN}", failed());
        }
        let length: u64 = entries.iter().map(|entry| entry.n_bytes).sum();
        data.set_len(DIGITS + head.room + length)
            .with_context(failed)?;
        let journal = OpenOptions::new().append(true).open(&paths.journal)?;
        journal.set_len(good)?;
        let mut part = Part::of(paths, (data, journal), head.room, Header::new(facts)?);
        part.data.seek(SeekFrom::End(0))?;
        for entry in &entries {
            part.count(entry)?;
        }
        Ok(Some((part, entries)))
    }

    /// What it will be called.
    pub(super) fn file(&self) -> String {
        self.paths.file()
    }

    /// Whether an entry has no place here.
    pub(super) fn is_full_for(&self, entry: &Entry, size: u64) -> Result<bool> {
        if !self.header.takes(entry) {
            return Ok(true);
        }
        let mut more = Header::default();
        more.add(entry, self.length)?;
        let header = self.header.length() + more.length();
        let large = self.length > 0 && self.length + entry.n_bytes > size;
        Ok(large || header > self.room)
    }

    /// Adds an entry, with the bytes of its tensors in order.
    pub(super) fn add(&mut self, entry: &Entry, tensors: &[Vec<u8>]) -> Result<()> {
        for bytes in tensors {
            let written = self.data.write_all(bytes);
            written.with_context(|| self.paths.part.display().to_string())?;
        }
        self.count(entry)?;
        serde_json::to_writer(&mut self.pending, entry)?;
        self.pending.push(b'\n');
        if self.pending.len() > UNSAFE_AT_MOST || self.since.elapsed() > UNSAFE_FOR {
            self.make_safe()?;
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry) -> Result<()> {
        self.header.add(entry, self.length)?;
        self.length += entry.n_bytes;
        Ok(())
    }

    /// Tensors first, then the journal that tells of them.
    pub(super) fn make_safe(&mut self) -> Result<()> {
        self.since = Instant::now();
        if self.pending.is_empty() {
            return Ok(());
        }
        let failed = || self.paths.part.display().to_string();
        self.data.flush().with_context(failed)?;
        self.data.get_ref().sync_data().with_context(failed)?;
        self.journal.write_all(&self.pending).with_context(failed)?;
        self.journal.sync_data().with_context(failed)?;
        self.pending.clear();
        Ok(())
    }

    /// Writes the header and gives the file its name.
    pub(super) fn close(mut self) -> Result<()> {
        self.make_safe()?;
        let failed = || self.paths.part.display().to_string();
        let mut text = self.header.text().into_bytes();
        let room = usize::try_from(self.room)?;
        if text.len() > room {
            bail!("{}: the header has outgrown its room", failed());
        }
        text.resize(room, b' ');
        let mut file = self.data.get_ref();
        file.seek(SeekFrom::Start(0)).with_context(failed)?;
        file.write_all(&self.room.to_le_bytes())
            .with_context(failed)?;
        file.write_all(&text).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&self.paths.part, &self.paths.whole).with_context(failed)?;
        if let Some(folder) = self.paths.whole.parent() {
            sync_folder(folder);
        }
        // The file tells by itself now; a journal that stays is not read.
        let _ = fs::remove_file(&self.paths.journal);
        Ok(())
    }
}

/// What a folder of another run is answered.
pub(super) const OTHER_RUN: &str = "packed with other weights, types or another version; choose \
     another --out-dir";

/// The journal and the tensors of a part, if both are there.
fn left_behind(paths: &Paths) -> Result<Option<(File, File)>> {
    let journal = File::open(&paths.journal);
    let data = OpenOptions::new().write(true).open(&paths.part);
    let journal = if_there(journal, &paths.journal)?;
    Ok(journal.zip(if_there(data, &paths.part)?))
}

fn if_there(opened: io::Result<File>, path: &Path) -> Result<Option<File>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unread(error, path)),
    }
}

/// The entries whose tensors lie within `length` bytes, and how much of the journal tells of them.
fn replay(journal: File, length: u64) -> Result<Option<(Head, Vec<Entry>, u64)>> {
    let mut lines = BufReader::new(journal);
    let Some((head, mut good)) = next_of::<Head>(&mut lines)? else {
        return Ok(None);
    };
    if head.room > 2 * HEADER_AT_MOST {
        return Ok(None);
    }
    let (mut entries, mut end) = (Vec::new(), DIGITS + head.room);
    let mut names = Names::default();
    while let Some((entry, read)) = next_of::<Entry>(&mut lines)? {
        let n_bytes = sum(&entry.tensors);
        end = end.saturating_add(entry.n_bytes);
        let is_there = end <= length || entry.n_bytes == 0;
        let is_true = n_bytes.is_ok_and(|n_bytes| n_bytes == entry.n_bytes);
        if !is_there || !is_true || !names.add_all(&entry) {
            break;
        }
        good += read;
        entries.push(entry);
    }
    Ok(Some((head, entries, good)))
}

/// The next line of a journal, and its length; `None` at the end, and for half a line or one that is
/// none.
fn next_of<T: DeserializeOwned>(lines: &mut impl BufRead) -> Result<Option<(T, u64)>> {
    let mut line = Vec::new();
    let read = lines.take(LINE_AT_MOST).read_until(b'\n', &mut line)?;
    let said = serde_json::from_slice(&line).ok();
    let whole = said.filter(|_| line.ends_with(b"\n"));
    Ok(whole.map(|said| (said, read as u64)))
}

impl Entry {
    pub(super) fn new(id: &str, said: Metadata, tensors: Tensors) -> Result<Entry> {
        Ok(Entry {
            id: id.to_owned(),
            n_bytes: sum(&tensors)?,
            tensors,
            said,
        })
    }
}

/// Bytes of several tensors.
fn sum(tensors: &Tensors) -> Result<u64> {
    tensors.iter().try_fold(0_u64, |sum, (_, dtype, shape)| {
        let sum = sum.checked_add(n_bytes(dtype, shape)?);
        sum.with_context(|| format!("a tensor of shape {shape:?}"))
    })
}

/// Name, type and shape of each.
pub(super) type Tensors = Vec<(String, String, Vec<usize>)>;

impl Paths {
    pub(super) fn new(folder: &Path, stem: &str, number: u32) -> Paths {
        let name = format!("{stem}-{number:05}");
        Paths {
            whole: folder.join(format!("{name}.safetensors")),
            part: folder.join(format!(".{name}.part")),
            journal: folder.join(format!(".{name}.journal")),
        }
    }

    /// The name of the whole file.
    pub(super) fn file(&self) -> String {
        let name = self.whole.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SD 1.x in f16, the positive side alone.
    fn entry(number: usize, windows: usize, words: usize) -> Entry {
        let shape = vec![1, CONTEXT * windows, 768];
        let n_bytes = n_bytes("F16", &shape).unwrap();
        let id = format!("id-{number:06}");
        let said = BTreeMap::from([("positive".to_owned(), "w".repeat(words))]);
        Entry {
            tensors: vec![("prompt_embeds".to_owned(), "F16".to_owned(), shape)],
            id,
            n_bytes,
            said,
        }
    }

    /// The header does not end it before the tensors do: not with small entries, nor where the first is longer than
    /// those that follow, or says less.
    #[test]
    fn a_part_becomes_as_large_as_was_asked_for() {
        for (size, first) in [(2_000_000_000, (1, 100)), (300_000_000, (9, 20))] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let paths = Paths {
                whole: at("whole"),
                part: at("part"),
                journal: at("journal"),
            };
            let first = entry(0, first.0, first.1);
            let mut part = Part::new(paths, &Metadata::new(), size, &first).unwrap();
            part.count(&first).unwrap();
            let mut number = 1;
            loop {
                let next = entry(number, 1, 150);
                if part.is_full_for(&next, size).unwrap() {
                    break;
                }
                part.count(&next).unwrap();
                number += 1;
            }
            assert!(part.length + 200_000 > size, "{} of {size}", part.length);
        }
    }
}
