//! The header of a safetensors file, read alone and checked against the file's real length.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::Dtype;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::sniff::MAX_HEADER;
use super::stored::{Form, Stored};
use crate::error::{Error, ErrorKind, Result, named};

/// One tensor as a file announces it, with its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub(crate) name: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    /// Bytes from the start of the file.
    pub(crate) start: u64,
    /// What all values take, row by row.
    pub(crate) n_bytes: u64,
    pub(crate) form: Form,
}

/// The strings that a header keeps beside its tensors.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Reads and checks the header; of the data nothing is read.
pub(crate) fn read(
    file: &mut File,
    length: u64,
    path: &Path,
) -> Result<(Vec<Announced>, Metadata)> {
    let at_path = |error: Error| error.at_path(path);
    let io = |error| Error::io(path, error);
    let mut size = [0; 8];
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.read_exact(&mut size).map_err(io)?;
    let size = checked_size(u64::from_le_bytes(size), length).map_err(at_path)?;
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text).map_err(io)?;
    let mut header = parse(&text).map_err(at_path)?;
    let metadata = std::mem::take(&mut header.metadata);
    let tensors = place(header, 8 + size, length).map_err(at_path)?;
    Ok((tensors, metadata))
}

/// The size of the header, if a file of this length has room for it.
fn checked_size(size: u64, length: u64) -> Result<u64> {
    if size > MAX_HEADER || size > length.saturating_sub(8) {
        return Err(truncated(8_u64.saturating_add(size), length, "its header"));
    }
    Ok(size)
}

fn parse(text: &[u8]) -> Result<Header> {
    let text = std::str::from_utf8(text)
        .map_err(|error| broken("the header is not UTF-8 text".to_owned()).because(error))?;
    serde_json::from_str(text)
        .map_err(|error| broken(format!("the header cannot be read: {error}")).because(error))
}

/// Checks that the tensors fill the data exactly, and turns offsets into places in the file.
fn place(header: Header, data: u64, length: u64) -> Result<Vec<Announced>> {
    let mut tensors = header.tensors;
    if tensors.is_empty() {
        return Err(broken("the file holds metadata but no tensor".to_owned()));
    }
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end = 0;
    let mut announced = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if let Some(message) = wrong_place(&tensor, end) {
            return Err(broken(message).at_tensor(name));
        }
        let (start, stop) = tensor.data_offsets;
        let Some(place) = data.checked_add(start) else {
            return Err(broken("offset overflow".into()).at_tensor(name));
        };
        announced.push(tensor.announced(name, place, stop - end));
        end = stop;
    }
    check_length(data, end, length)?;
    Ok(announced)
}

/// The message if a tensor's data do not follow those of the others, which have an `end`.
fn wrong_place(tensor: &Tensor, end: u64) -> Option<String> {
    let (start, _) = tensor.data_offsets;
    match start.cmp(&end) {
        Ordering::Less => Some(format!("its data overlap others: {start} < {end}")),
        Ordering::Greater => Some(format!("{} bytes before it are nobody's", start - end)),
        Ordering::Equal => wrong_size(tensor),
    }
}

/// An error unless the file ends with its data, of which the last byte is before `end`.
fn check_length(data: u64, end: u64, length: u64) -> Result<()> {
    match data.saturating_add(end).cmp(&length) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(truncated(data.saturating_add(end), length, "its data")),
        Ordering::Less => Err(broken(format!(
            "the file has {length} bytes, but its tensors end after {}: trailing bytes",
            data + end
        ))),
    }
}

/// The message if shape, type and byte count do not agree.
fn wrong_size(tensor: &Tensor) -> Option<String> {
    let (start, stop) = tensor.data_offsets;
    let bits = tensor
        .shape
        .iter()
        .try_fold(tensor.dtype.bitsize(), |product, side| {
            product.checked_mul(*side)
        });
    let Some(bits) = bits else {
        return Some(format!("shape {:?} overflows", tensor.shape));
    };
    let Some(n_bytes) = stop.checked_sub(start) else {
        return Some(format!("its data end before they begin: {start}..{stop}"));
    };
    let fits = bits % 8 == 0 && (bits / 8) as u64 == n_bytes;
    (!fits).then(|| {
        let (shape, dtype) = (&tensor.shape, tensor.dtype);
        format!(
            "shape {shape:?} of {dtype} takes {} bytes, the header gives {n_bytes}",
            bits / 8
        )
    })
}

fn broken(message: String) -> Error {
    Error::new(ErrorKind::FileFormat, message)
}

fn truncated(expected: u64, found: u64, what: &str) -> Error {
    let message = format!(
        "the file ends within {what}: expected {expected} bytes, found {found}; incomplete download?"
    );
    broken(message).hint("download it again")
}

/// A header's JSON: an object of tensors, in file order, names unique.
struct Header {
    tensors: Vec<(String, Tensor)>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Tensor {
    fn announced(self, name: String, start: u64, n_bytes: u64) -> Announced {
        Announced {
            name,
            stored: self.dtype.into(),
            shape: self.shape,
            start,
            n_bytes,
            form: Form::Dense,
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut tensors, mut metadata) = (BTreeMap::new(), Metadata::new());
        while let Some(name) = map.next_key::<String>()? {
            let shown = || named(&name);
            let within = |error: A::Error| A::Error::custom(format!("`{}`: {error}", shown()));
            if name == "__metadata__" {
                // `null` is what Python's `None` becomes.
                let given: Option<Metadata> = map.next_value().map_err(within)?;
                metadata = given.unwrap_or_default();
                continue;
            }
            let tensor = map.next_value::<Tensor>().map_err(within)?;
            if tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("`{}` is there twice", shown())));
            }
            tensors.insert(name, tensor);
        }
        Ok(Header {
            tensors: tensors.into_iter().collect(),
            metadata,
        })
    }
}
