//! What a file is by its first bytes, never by its name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Bytes looked at: the `ustar` mark of a tar file ends at 262.
const LOOKED_AT: u64 = 512;

/// The longest safetensors header: `MAX_HEADER_SIZE` of the safetensors crate.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// How much of a zip file's end is searched for the names of its entries.
const ZIP_TAIL: u64 = 1 << 20;

/// An old `torch.save` file begins with the pickle of this magic number
/// (`MAGIC_NUMBER` in torch/serialization.py).
const LEGACY_TORCH: &[u8] = &[
    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e,
];

const SAFETENSORS: &str = "give the .safetensors file instead";

/// What a file with weights can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// safetensors.
    Safetensors,
    /// A zip archive that `torch.save` of version 1.6 or later wrote.
    TorchZip,
    /// What `torch.save` wrote before that.
    TorchLegacy,
    /// ggml's format.
    Gguf,
}

/// What the file is; an error says what it is if it holds no weights.
pub(crate) fn kind(file: &mut File, length: u64, path: &Path) -> Result<Kind> {
    let mut first = Vec::new();
    file.seek(SeekFrom::Start(0))
        .map_err(|error| Error::io(path, error))?;
    file.take(LOOKED_AT)
        .read_to_end(&mut first)
        .map_err(|error| Error::io(path, error))?;
    if begins_as_safetensors(&first) {
        return Ok(Kind::Safetensors);
    }
    if let Some(error) = refusal(&first) {
        return Err(error.at_path(path));
    }
    if first.starts_with(b"GGUF") {
        return Ok(Kind::Gguf);
    }
    if is_legacy(&first) {
        return Ok(Kind::TorchLegacy);
    }
    if first.starts_with(b"PK\x03\x04") {
        return zip(&first, file, length).map_err(|error| error.at_path(path));
    }
    match not_safetensors(&first, length) {
        Some(error) => Err(error.at_path(path)),
        None => Ok(Kind::Safetensors),
    }
}

/// True for the length of a header that is allowed, and the header's first byte. Such a length may look
/// like the beginning of a pickle, a gzip archive or a picture; none of these has that byte there.
fn begins_as_safetensors(first: &[u8]) -> bool {
    let size = first.first_chunk::<8>();
    let size = size.map(|bytes| u64::from_le_bytes(*bytes));
    size.is_some_and(|size| size <= MAX_HEADER) && first.get(8) == Some(&b'{')
}

/// True if the file begins with a pickle of the magic number; newer protocols put a frame before.
fn is_legacy(first: &[u8]) -> bool {
    matches!(first, [0x80, 2..=5, ..]) && holds(&first[..first.len().min(32)], LEGACY_TORCH)
}

/// Everything whose first bytes say what it is.
fn refusal(first: &[u8]) -> Option<Error> {
    if first.is_empty() {
        return Some(broken("the file is empty", "download it again"));
    }
    if first.iter().all(|byte| *byte == 0) {
        return Some(broken(
            "the file begins with nothing but zeros",
            "download it again",
        ));
    }
    if matches!(first, [0x80, 2..=5, ..]) && !is_legacy(first) {
        let message = "this is a plain Python pickle, which torch.save did not write";
        return Some(Error::new(ErrorKind::Unsupported, message).hint(SAFETENSORS));
    }
    if first.get(257..262) == Some(b"ustar") {
        let message = "this is a tar file, as very old PyTorch wrote, which is not supported";
        return Some(Error::new(ErrorKind::Unsupported, message).hint(SAFETENSORS));
    }
    text(first).or_else(|| foreign(first))
}

/// Web pages and other text under the name of a weight file.
fn text(first: &[u8]) -> Option<Error> {
    let text = first.trim_ascii_start().to_ascii_lowercase();
    let starts = |mark: &[u8]| text.starts_with(mark);
    if starts(b"version https://git-lfs") {
        let message = "this is a Git LFS pointer, not the file";
        return Some(broken(message, "run `git lfs pull`"));
    }
    if starts(b"<!doc") || starts(b"<html") || starts(b"<?xml") || starts(b"<head") {
        let message = "this is an HTML or XML page, not weights";
        return Some(broken(message, "a login or error page was downloaded"));
    }
    if starts(b"{") && first.get(8) != Some(&b'{') {
        let message = "this is JSON text (a configuration, an index, or an error answer), not \
                       weights";
        return Some(broken(
            message,
            "give the weights, or the folder that holds both",
        ));
    }
    None
}

/// Other binary formats.
fn foreign(first: &[u8]) -> Option<Error> {
    let onnx = first.first() == Some(&0x08) && holds(&first[..first.len().min(64)], b"onnx");
    let kinds: [(bool, &str); 7] = [
        (is_picture(first), "an image"),
        (first.starts_with(b"\x93NUMPY"), "a NumPy array"),
        (onnx, "an ONNX model"),
        (first.starts_with(b"\x1f\x8b"), "a gzip archive"),
        (first.starts_with(b"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
        (first.starts_with(b"\x89HDF"), "an HDF5 file"),
        (
            first.starts_with(b"ggml") || first.starts_with(b"lmgg"),
            "an old GGML file",
        ),
    ];
    let (_, kind) = kinds.into_iter().find(|(is, _)| *is)?;
    Some(broken(&format!("this is {kind}, not weights"), SAFETENSORS))
}

/// PNG, JPEG or WebP.
pub(crate) fn is_picture(first: &[u8]) -> bool {
    let webp = first.starts_with(b"RIFF") && first.get(8..12) == Some(b"WEBP");
    first.starts_with(b"\x89PNG") || first.starts_with(b"\xff\xd8\xff") || webp
}

/// A zip file is what the names of its entries say: `PyTorch`'s, `NumPy`'s, other.
fn zip(first: &[u8], file: &mut File, length: u64) -> Result<Kind> {
    let mut tail = Vec::new();
    let start = length.saturating_sub(ZIP_TAIL);
    // A file that cannot be read to its end is still a zip file by its first bytes.
    if file.seek(SeekFrom::Start(start)).is_ok() {
        let _ = file.take(ZIP_TAIL).read_to_end(&mut tail);
    }
    let named = |name: &[u8]| holds(first, name) || holds(&tail, name);
    if named(b"data.pkl") {
        return Ok(Kind::TorchZip);
    }
    Err(if named(b".npy") {
        broken("this is a NumPy .npz archive, not weights", SAFETENSORS)
    } else if named(b".onnx") {
        broken(
            "this is a zip archive of an ONNX model, not weights",
            SAFETENSORS,
        )
    } else {
        broken("this is a plain zip archive, not weights", "unpack it")
    })
}

/// What must hold of the first nine bytes of safetensors.
fn not_safetensors(first: &[u8], length: u64) -> Option<Error> {
    let Some(size) = first
        .first_chunk::<8>()
        .map(|bytes| u64::from_le_bytes(*bytes))
    else {
        let message = format!("the file has {length} bytes, fewer than any weight file");
        return Some(broken(&message, "download it again"));
    };
    if first.get(8).is_some_and(|byte| *byte != b'{') || (size > MAX_HEADER && first.len() > 8) {
        let message = if first.get(8) == Some(&b'{') {
            format!("its header would have {size} bytes; safetensors allows {MAX_HEADER}")
        } else {
            "no known weight format begins like this".to_owned()
        };
        return Some(broken(
            &message,
            "safetensors, PyTorch and GGUF files can be read",
        ));
    }
    None
}

fn broken(message: &str, hint: &str) -> Error {
    Error::new(ErrorKind::FileFormat, message).hint(hint)
}

/// This build lacks a reader.
#[cfg_attr(
    all(feature = "pickle", feature = "gguf"),
    expect(dead_code, reason = "nothing is missing from this build")
)]
pub(crate) fn not_built(what: &str, feature: &str) -> Error {
    let message = format!("this is {what}, which this build cannot read");
    let hint = format!("build with the feature `{feature}`, or give the .safetensors file");
    Error::new(ErrorKind::Unsupported, message).hint(hint)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
