//! Several arrays in numpy's `.npz` format: a zip archive of `.npy` files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use candle_core::Tensor;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npy;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{open_file, write_whole};

/// The most arrays that are looked at; the files this is for have three.
const MAX_ENTRIES: usize = 64;

/// Writes arrays as `numpy.savez` does: stored, not compressed.
pub(super) fn write(path: &Path, arrays: &[(&str, Tensor)]) -> Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut archive = ZipWriter::new(&mut bytes);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let failed = |error: ZipError| {
        Error::new(ErrorKind::Io, error.to_string())
            .because(error)
            .at_path(path)
    };
    for (name, tensor) in arrays {
        let array = npy::write(tensor).map_err(|error| error.at_tensor(*name).at_path(path))?;
        archive
            .start_file(format!("{name}.npy"), options)
            .map_err(failed)?;
        archive
            .write_all(&array)
            .map_err(|error| Error::io(path, error))?;
    }
    archive.finish().map_err(failed)?;
    write_whole(path, bytes.get_ref())
}

/// Reads the arrays that `wanted` accepts. Compressed archives are refused; nothing larger than
/// the file is allocated.
pub(super) fn read(path: &Path, wanted: &[&str]) -> Result<BTreeMap<String, Tensor>> {
    let (file, length) = open_file(path)?;
    let broken = |error: ZipError| {
        let message = format!("the archive cannot be read: {error}");
        Error::new(ErrorKind::FileFormat, message)
            .because(error)
            .at_path(path)
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let count = archive.len();
    if count > MAX_ENTRIES {
        let message = format!("{count} arrays; at most {MAX_ENTRIES} are looked at");
        return Err(Error::new(ErrorKind::FileFormat, message).at_path(path));
    }
    let mut arrays = BTreeMap::new();
    for name in wanted {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else {
            continue;
        };
        let array = entry(&mut archive, index, length, broken).and_then(|bytes| npy::read(&bytes));
        let array = array.map_err(|error| error.at_tensor(*name).at_path(path))?;
        arrays.insert((*name).to_owned(), array);
    }
    Ok(arrays)
}

fn entry(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
    length: u64,
    broken: impl Fn(ZipError) -> Error,
) -> Result<Vec<u8>> {
    let entry = archive.by_index_raw(index).map_err(&broken)?;
    if entry.compression() != CompressionMethod::Stored {
        let error = Error::new(ErrorKind::Unsupported, "a compressed array");
        return Err(error.hint("save it with numpy.savez instead of savez_compressed"));
    }
    drop(entry);
    let mut entry = archive.by_index(index).map_err(&broken)?;
    let mut bytes = Vec::new();
    let read = entry.by_ref().take(length).read_to_end(&mut bytes);
    read.map_err(|error| {
        let message = format!("the archive cannot be read: {error}");
        Error::new(ErrorKind::FileFormat, message).because(error)
    })?;
    Ok(bytes)
}
