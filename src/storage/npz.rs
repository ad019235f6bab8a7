//! Several arrays in numpy's `.npz` format: a zip archive of `.npy` files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use candle_core::Tensor;
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npy::{self, Outline};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::open_file;

/// The most arrays that are looked at; the files this is for have three.
const MAX_ENTRIES: usize = 64;

/// Bytes of the record at an archive's end, but for its comment.
const END: usize = 22;

/// Bytes of an array's file that hold its header, if it has one.
const HEADER: u64 = 4096;

/// Arrays as `numpy.savez` writes them: stored, not compressed. The comment stands at the end of the
/// archive, where numpy passes over it.
pub(super) fn to_bytes(arrays: &BTreeMap<String, Tensor>, comment: &str) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let mut archive = ZipWriter::new(&mut bytes);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let failed = |error: ZipError| Error::new(ErrorKind::Io, error.to_string()).because(error);
    for (name, tensor) in arrays {
        let array = npy::write(tensor).map_err(|error| error.at_tensor(name.as_str()))?;
        archive
            .start_file(format!("{name}.npy"), options)
            .map_err(failed)?;
        let written = archive.write_all(&array);
        written.map_err(|error| failed(ZipError::Io(error)))?;
    }
    archive.set_comment(comment).map_err(failed)?;
    archive.finish().map_err(failed)?;
    Ok(bytes.into_inner())
}

/// What an archive holds, without its numbers.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) comment: Vec<u8>,
    /// By name, without `.npy`.
    pub(super) arrays: BTreeMap<String, Outline>,
}

/// Looks at headers only. An archive that is cut, lengthened or compressed is refused.
pub(super) fn contents(path: &Path) -> Result<Contents> {
    let (file, length) = open_file(path)?;
    let mut archive = opened(file, path)?;
    let comment = archive.comment().to_vec();
    let mut arrays = BTreeMap::new();
    let names = archive.len() + usize::from(archive.has_duplicate_names());
    for index in 0..archive.len() {
        let (name, outline) =
            outline_of(&mut archive, index).map_err(|error| error.at_path(path))?;
        arrays.insert(name, outline);
    }
    let end = length.checked_sub((END + comment.len()) as u64);
    let is_there = end.map(|end| ends_at(archive.into_inner(), end, comment.len()));
    let is_there = is_there.transpose();
    let is_there = is_there.map_err(|error| Error::io(path, error))?;
    if is_there != Some(true) || names != arrays.len() {
        let message = "the archive is not as long as it says";
        return Err(Error::new(ErrorKind::FileFormat, message).at_path(path));
    }
    Ok(Contents { comment, arrays })
}

/// Whether the archive's last record begins here, has a comment of so many bytes, and finds in front of it as
/// many bytes as it tells of. Readers pass over some that are missing or too many.
fn ends_at(mut file: BufReader<File>, end: u64, comment: usize) -> io::Result<bool> {
    let mut record = [0; END];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut record)?;
    let number = |at: usize, n_bytes: usize| {
        let bytes = record[at..at + n_bytes].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let before = number(12, 4) + number(16, 4);
    let is_last = record.starts_with(b"PK\x05\x06") && number(20, 2) == comment as u64;
    Ok(is_last && before == end)
}

fn outline_of(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
) -> Result<(String, Outline)> {
    let mut entry = archive.by_index_raw(index).map_err(unread)?;
    expect_stored(&entry)?;
    let name = entry.name().map_err(unread)?.into_owned();
    let array = name.strip_suffix(".npy");
    let array = array.ok_or_else(|| {
        let message = format!("`{}`, which is no array", name.escape_debug());
        Error::new(ErrorKind::FileFormat, message)
    })?;
    let length = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    let mut beginning = Vec::new();
    let read = entry.by_ref().take(HEADER).read_to_end(&mut beginning);
    read.map_err(|error| unread(ZipError::Io(error)))?;
    let outline = Outline::of(&beginning, length).map_err(|error| error.at_tensor(array))?;
    Ok((array.to_owned(), outline))
}

/// Reads the arrays that `wanted` accepts. Compressed archives are refused; nothing larger than
/// the file is allocated.
pub(super) fn read(path: &Path, wanted: &[&str]) -> Result<BTreeMap<String, Tensor>> {
    let (file, length) = open_file(path)?;
    let mut archive = opened(file, path)?;
    let mut arrays = BTreeMap::new();
    for name in wanted {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else {
            continue;
        };
        let array = entry(&mut archive, index, length).and_then(|bytes| npy::read(&bytes));
        let array = array.map_err(|error| error.at_tensor(*name).at_path(path))?;
        arrays.insert((*name).to_owned(), array);
    }
    Ok(arrays)
}

/// An archive of few arrays.
fn opened(file: File, path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let archive = ZipArchive::new(BufReader::new(file));
    let archive = archive.map_err(|error| unread(error).at_path(path))?;
    let count = archive.len();
    if count > MAX_ENTRIES {
        let message = format!("{count} arrays; at most {MAX_ENTRIES} are looked at");
        return Err(Error::new(ErrorKind::FileFormat, message).at_path(path));
    }
    Ok(archive)
}

fn unread(error: ZipError) -> Error {
    let message = format!("the archive cannot be read: {error}");
    Error::new(ErrorKind::FileFormat, message).because(error)
}

fn expect_stored<R: Read + ?Sized>(entry: &ZipFile<'_, R>) -> Result<()> {
    if entry.compression() == CompressionMethod::Stored {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "a compressed array");
    Err(error.hint("save it with numpy.savez instead of savez_compressed"))
}

fn entry(archive: &mut ZipArchive<BufReader<File>>, index: usize, length: u64) -> Result<Vec<u8>> {
    expect_stored(&archive.by_index_raw(index).map_err(unread)?)?;
    let mut entry = archive.by_index(index).map_err(unread)?;
    let mut bytes = Vec::new();
    let read = entry.by_ref().take(length).read_to_end(&mut bytes);
    read.map_err(|error| unread(ZipError::Io(error)))?;
    Ok(bytes)
}
