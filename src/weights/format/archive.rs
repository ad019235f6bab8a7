//! A set of named tensors in one file or several, of which only the headers were read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::Dtype;

use super::{file, header, sniff};
use crate::error::{Error, ErrorKind, Result};

/// Prefixes that wrappers put before every name: `DataParallel`, `torch.compile`, and trainers.
const WRAPPERS: [&str; 4] = ["model.module.", "module.model.", "module.", "_orig_mod."];

/// A tensor and its place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As the file spells it, wrappers included.
    pub(crate) file_name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) start: u64,
    pub(crate) n_bytes: u64,
    pub(crate) part: usize,
}

/// One file, kept open so that what was checked is what will be read.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Mutex<File>,
    length: u64,
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
            metadata: header::Metadata::new(),
            parts,
        }
    }

    /// Reads the header of one more file.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let (mut file, length) = file::open(path)?;
        sniff::expect_safetensors(&mut file, length, path)?;
        let part = self.parts.len();
        let (tensors, metadata) = header::read(&mut file, length, path)?;
        self.metadata.extend(metadata);
        for tensor in tensors {
            let (name, dtype, shape) = (tensor.name, tensor.dtype, tensor.shape);
            let (start, n_bytes) = (tensor.start, tensor.n_bytes);
            let entry = Entry {
                file_name: name.clone(),
                dtype,
                shape,
                start,
                n_bytes,
                part,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                let message = "this tensor is in two files of the set";
                let error = Error::new(ErrorKind::FileFormat, message);
                return Err(error.at_path(path).at_tensor(name));
            }
        }
        self.parts.push(Part {
            path: path.to_owned(),
            file: Mutex::new(file),
            length,
        });
        Ok(())
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
        let part = &self.parts[entry.part];
        let inside = range.start <= range.end && range.end <= entry.n_bytes;
        let count = usize::try_from(range.end.saturating_sub(range.start));
        let (true, Ok(count)) = (inside, count) else {
            let message = format!("bytes {range:?} of a tensor with {}", entry.n_bytes);
            return Err(Error::new(ErrorKind::FileFormat, message).at_path(&part.path));
        };
        let io = |error| Error::io(&part.path, error).at_tensor(&entry.file_name);
        let mut file = part.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(entry.start + range.start))
            .map_err(io)?;
        let mut bytes = vec![0; count];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    /// Reads a whole tensor.
    pub(crate) fn read_all(&self, entry: &Entry) -> Result<Vec<u8>> {
        self.read(entry, 0..entry.n_bytes)
    }
}
