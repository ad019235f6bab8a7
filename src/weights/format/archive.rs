//! A set of named tensors in one file or several, of which only the headers were read.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::Mmap;

use super::header::Announced;
use super::positioned::Positioned;
use super::sniff::{self, Kind};
use super::stored::{Form, Stored};
use super::{file, gguf, header, pickle, strided};
use crate::error::{Error, ErrorKind, Result};
use crate::mapped::Unchanging;

/// Prefixes that wrappers put before every name: `DataParallel`, `torch.compile`, and trainers.
const WRAPPERS: [&str; 4] = ["model.module.", "module.model.", "module.", "_orig_mod."];

/// How many bytes of a view's span for each that is asked for make it cheaper to read its values one by
/// one.
const FAR_APART: usize = 512;

/// A tensor and its place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As the file spells it, wrappers included.
    pub(crate) file_name: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: u64,
    /// What all values take, row by row.
    pub(crate) n_bytes: u64,
    pub(crate) form: Form,
    pub(crate) part: usize,
}

/// One file, kept open so that what was checked is what will be read.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Positioned,
    length: u64,
    /// As long as somebody holds it: nobody promised that the file stays as it is for longer.
    mapped: Mutex<Weak<Mmap>>,
}

impl Part {
    /// `None` where the system refuses.
    fn mapped(&self, word: Unchanging) -> Option<Arc<Mmap>> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = mapped.upgrade() {
            return Some(held);
        }
        let file = Arc::new(self.file.map(word).ok()?);
        *mapped = Arc::downgrade(&file);
        Some(file)
    }

    /// Values of a strided tensor row by row, from byte `from` of them on.
    fn gather(&self, entry: &Entry, strides: &[u64], from: u64, to: &mut [u8]) -> io::Result<()> {
        let walk = strided::Walk::new(&entry.shape, strides, entry.stored.value_bytes());
        if walk.n_bytes() / FAR_APART > to.len() {
            let read = |at: usize, part: &mut [u8]| self.file.read(entry.start + at as u64, part);
            return walk.fill(from, to, read);
        }
        let mut span = vec![0; walk.n_bytes()];
        self.file.read(entry.start, &mut span)?;
        walk.copy(&span, from, to);
        Ok(())
    }
}

/// Tensors by name.
#[derive(Debug)]
pub(crate) struct Archive {
    /// The file, or the index of several.
    pub(crate) path: PathBuf,
    /// By name without wrappers.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// What a person should know of how it was read.
    pub(crate) notes: Vec<String>,
    /// What its files are.
    pub(crate) kind: Kind,
    /// What the headers keep beside the tensors; of several files, all together.
    pub(crate) metadata: header::Metadata,
    parts: Vec<Part>,
}

impl Archive {
    /// Opens one file and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Archive> {
        let mut archive = Archive::empty(path);
        archive.add(path)?;
        archive.unwrap();
        Ok(archive)
    }

    /// An archive without files, to be filled by [`Archive::add`].
    pub(super) fn empty(path: &Path) -> Archive {
        let (entries, parts, notes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Archive {
            path: path.to_owned(),
            entries,
            notes,
            kind: Kind::Safetensors,
            metadata: header::Metadata::new(),
            parts,
        }
    }

    /// Reads the header of one more file.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let (mut file, length) = file::open(path)?;
        self.kind = sniff::kind(&mut file, length, path)?;
        let read = match self.kind {
            Kind::Safetensors => header::read(&mut file, length, path).map(|(all, metadata)| {
                self.metadata.extend(metadata);
                (all, Vec::new())
            }),
            Kind::TorchZip => pickle::read_zip(&mut file, length),
            Kind::TorchLegacy => pickle::read_legacy(&mut file, length),
            Kind::Gguf => gguf::read(&mut file, length),
        };
        let (announced, notes) = read.map_err(|error| error.at_path(path))?;
        self.notes.extend(notes);
        for tensor in announced {
            self.insert(tensor, path)?;
        }
        self.parts.push(Part {
            path: path.to_owned(),
            file: file.into(),
            length,
            mapped: Mutex::default(),
        });
        Ok(())
    }

    fn insert(&mut self, tensor: Announced, path: &Path) -> Result<()> {
        let Announced {
            name,
            stored,
            shape,
            start,
            n_bytes,
            form,
        } = tensor;
        let entry = Entry {
            file_name: name.clone(),
            stored,
            shape,
            start,
            n_bytes,
            form,
            part: self.parts.len(),
        };
        if self.entries.insert(name.clone(), entry).is_none() {
            return Ok(());
        }
        let message = "this tensor is in two files of the set";
        let error = Error::new(ErrorKind::FileFormat, message);
        Err(error.at_path(path).at_tensor(name))
    }

    /// Takes a wrapper's prefix off if every name has it.
    fn unwrap(&mut self) {
        let everywhere = |prefix: &&str| self.entries.keys().all(|name| name.starts_with(*prefix));
        let Some(prefix) = WRAPPERS.iter().find(|prefix| everywhere(prefix)) else {
            return;
        };
        let entries = std::mem::take(&mut self.entries);
        self.notes.push(format!(
            "every name begins with `{prefix}`, which was taken off"
        ));
        self.entries = entries
            .into_iter()
            .map(|(name, entry)| (name[prefix.len()..].to_owned(), entry))
            .collect();
    }

    /// The names that begin with `prefix`, with what follows it.
    pub(crate) fn below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.entries
            .range(prefix.to_owned()..)
            .map_while(move |(name, entry)| Some((name.strip_prefix(prefix)?, entry)))
    }

    /// True if any name begins with `prefix`.
    pub(crate) fn has_below(&self, prefix: &str) -> bool {
        self.below(prefix).next().is_some()
    }

    /// Length of all files together.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.length).sum()
    }

    /// The file that holds a tensor.
    pub(crate) fn path_of(&self, entry: &Entry) -> &Path {
        self.parts
            .get(entry.part)
            .map_or(&self.path, |part| &part.path)
    }

    /// Reads some bytes of a tensor. The range was checked against the file's length when the
    /// header was read, so no more is allocated than the file has.
    pub(crate) fn read(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>> {
        let inside = range.start <= range.end && range.end <= entry.n_bytes;
        let count = usize::try_from(range.end.saturating_sub(range.start));
        let (true, Ok(count)) = (inside, count) else {
            return Err(self.outside(entry, &range));
        };
        let mut bytes = vec![0; count];
        self.read_into(entry, range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from byte `from` of a tensor on.
    pub(crate) fn read_into(&self, entry: &Entry, from: u64, bytes: &mut [u8]) -> Result<()> {
        let part = &self.parts[entry.part];
        let end = from.saturating_add(bytes.len() as u64);
        if end > entry.n_bytes {
            return Err(self.outside(entry, &(from..end)));
        }
        let read = match &entry.form {
            Form::Dense => part.file.read(entry.start + from, bytes),
            Form::Strided(strides) => part.gather(entry, strides, from, bytes),
        };
        read.map_err(|error| Error::io(&part.path, error).at_tensor(&entry.file_name))
    }

    /// The file of a tensor in memory, if its values lie there row by row and the system has room for it.
    pub(super) fn mapped(&self, entry: &Entry, word: Unchanging) -> Option<Arc<Mmap>> {
        let part = self.parts.get(entry.part)?;
        match entry.form {
            Form::Dense => part.mapped(word),
            Form::Strided(_) => None,
        }
    }

    fn outside(&self, entry: &Entry, range: &Range<u64>) -> Error {
        let message = format!("bytes {range:?} of a tensor with {}", entry.n_bytes);
        Error::new(ErrorKind::FileFormat, message).at_path(self.path_of(entry))
    }

    /// Reads a whole tensor.
    pub(crate) fn read_all(&self, entry: &Entry) -> Result<Vec<u8>> {
        self.read(entry, 0..entry.n_bytes)
    }
}
