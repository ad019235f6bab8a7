//! The header of a GGUF file: names, types, shapes and places of tensors; of the data nothing is read.
//!
//! Format: ggml's `docs/gguf.md`, versions 1 to 3. Metadata is passed over, but for the alignment and
//! the shapes that ComfyUI-GGUF's converter keeps (`comfy.gguf.orig_shape.<tensor>`). No architecture
//! is asked for: stable-diffusion.cpp writes none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::ops::Range;

use safetensors::Dtype;

use self::source::{Source, Version};
use super::blocks::Blocks;
use super::header::Announced;
use super::stored::{Form, Stored};
use crate::error::{Error, ErrorKind, Result};

#[path = "gguf_source.rs"]
mod source;

/// Where data begin if nothing else is said: `GGUF_DEFAULT_ALIGNMENT`.
const ALIGNMENT: u64 = 32;

/// The most dimensions of a tensor: `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;

/// The least bytes that a tensor's line and a pair of metadata take: two lengths and a type.
const LEAST_LINE: u64 = 16;

/// What stands before the name of a tensor whose shape was changed to be quantized.
const ORIGINAL: &str = "comfy.gguf.orig_shape.";

/// Types of ggml that are plain numbers.
const PLAIN: [(u32, Dtype); 8] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];

/// A tensor as its line says.
struct Line {
    name: String,
    /// Rows first.
    shape: Vec<usize>,
    stored: Stored,
    offset: u64,
}

/// What metadata say of tensors.
struct Facts {
    alignment: u64,
    shapes: BTreeMap<String, Vec<usize>>,
}

/// Reads and checks the header.
pub(crate) fn read(file: &mut File, length: u64) -> Result<(Vec<Announced>, Vec<String>)> {
    let io = |error: std::io::Error| Error::new(ErrorKind::Io, error.to_string()).because(error);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut source = Source::new(BufReader::new(&mut *file), length);
    let (n_tensors, n_pairs) = counts(&mut source, length)?;
    let facts = facts(&mut source, n_pairs)?;
    let lines = (0..n_tensors).map(|_| line(&mut source));
    let lines: Vec<Line> = lines.collect::<Result<_>>()?;
    let data = source.position().next_multiple_of(facts.alignment);
    let mut announced = Vec::with_capacity(lines.len());
    let mut unknown = 0;
    for line in lines {
        unknown += usize::from(matches!(line.stored, Stored::Unknown(_)));
        let name = line.name.clone();
        let placed = place(line, &facts, data, length);
        announced.push(placed.map_err(|error| error.at_tensor(name))?);
    }
    let note = format!("{unknown} tensors are of types that are not known here");
    let notes = if unknown == 0 { Vec::new() } else { vec![note] };
    Ok((distinct(announced)?, notes))
}

/// Magic number, version, and how many tensors and pairs of metadata follow.
fn counts(source: &mut Source<BufReader<&mut File>>, length: u64) -> Result<(u64, u64)> {
    if &source.array::<4>()? != b"GGUF" {
        return Err(broken("it does not begin with `GGUF`"));
    }
    source.version = version(source.u32()?)?;
    let (n_tensors, n_pairs) = (source.count()?, source.count()?);
    for (count, what) in [(n_tensors, "tensors"), (n_pairs, "pairs of metadata")] {
        if count > length / LEAST_LINE {
            let message = format!("{count} {what} are announced in a file of {length} bytes");
            return Err(broken(&message).hint("incomplete download?"));
        }
    }
    if n_tensors == 0 {
        return Err(broken("it holds no tensor"));
    }
    Ok((n_tensors, n_pairs))
}

fn version(number: u32) -> Result<Version> {
    match number {
        1 => Ok(Version::One),
        2 | 3 => Ok(Version::Later),
        swapped if (1..=3).contains(&swapped.swap_bytes()) => {
            let message = "this GGUF file's numbers are big-endian, which is not supported";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        _ => {
            let message = format!("GGUF version {number}; 1 to 3 are known");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

fn facts(source: &mut Source<BufReader<&mut File>>, n_pairs: u64) -> Result<Facts> {
    let (mut alignment, mut shapes) = (ALIGNMENT, BTreeMap::new());
    for _ in 0..n_pairs {
        let key = source.text()?;
        let kind = source.u32()?;
        if key == "general.alignment" {
            alignment = source.whole_number(kind)?;
        } else if let Some(name) = key.strip_prefix(ORIGINAL) {
            let shape = source.whole_numbers(kind, u64::from(MAX_DIMENSIONS))?;
            shapes.insert(name.to_owned(), shape);
        } else {
            source.skip_value(kind)?;
        }
    }
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        let message = format!("`general.alignment` is {alignment}; it must be a power of two");
        return Err(broken(&message));
    }
    Ok(Facts { alignment, shapes })
}

/// One tensor.
fn line(source: &mut Source<BufReader<&mut File>>) -> Result<Line> {
    let name = source.text()?;
    let shape = shape(source, &name)?;
    let stored = stored(source.u32()?);
    let offset = source.array().map(u64::from_le_bytes)?;
    Ok(Line {
        name,
        shape,
        stored,
        offset,
    })
}

/// The dimensions of the tensor `name`, which stand with the fastest first.
fn shape(source: &mut Source<BufReader<&mut File>>, name: &str) -> Result<Vec<usize>> {
    let n_dimensions = source.u32()?;
    if n_dimensions > MAX_DIMENSIONS {
        let message = format!("{n_dimensions} dimensions; ggml has at most {MAX_DIMENSIONS}");
        return Err(broken(&message).at_tensor(name));
    }
    let mut shape = Vec::new();
    for _ in 0..n_dimensions {
        let side = source.count()?;
        let Ok(side) = usize::try_from(side) else {
            return Err(broken("a side that no memory holds").at_tensor(name));
        };
        shape.push(side);
    }
    shape.reverse();
    Ok(shape)
}

/// The type that has this number in ggml.
fn stored(number: u32) -> Stored {
    let plain = PLAIN.iter().find(|(other, _)| *other == number);
    match (plain, Blocks::numbered(number)) {
        (Some((_, dtype)), _) => Stored::Plain(*dtype),
        (None, Some(blocks)) => Stored::Blocks(blocks),
        (None, None) => Stored::Unknown(number),
    }
}

/// Checks a tensor against the file. Of a type that is not known only the beginning can be checked.
fn place(line: Line, facts: &Facts, data: u64, length: u64) -> Result<Announced> {
    let n_bytes = size(&line.shape, line.stored)?;
    let place = data.checked_add(line.offset);
    let place = place.and_then(|start| Some(start..start.checked_add(n_bytes)?));
    let place = place.ok_or_else(|| broken("its place overflows"))?;
    check_place(&line, &place, facts.alignment, length)?;
    let shape = original(&line.name, line.shape, facts)?;
    Ok(Announced {
        name: line.name,
        stored: line.stored,
        shape,
        start: place.start,
        n_bytes,
        form: Form::Dense,
    })
}

/// An error unless a tensor begins where one may, and ends within the file.
fn check_place(line: &Line, place: &Range<u64>, alignment: u64, length: u64) -> Result<()> {
    let (offset, end) = (line.offset, place.end);
    if offset % alignment != 0 {
        let message = format!("its offset {offset} is no multiple of {alignment}");
        return Err(broken(&message));
    }
    if end > length {
        let message = format!("its data end at byte {end}, the file has {length}");
        return Err(broken(&message).hint("incomplete download? download it again"));
    }
    Ok(())
}

/// Bytes of a tensor; 0 where the type is not known.
fn size(shape: &[usize], stored: Stored) -> Result<u64> {
    let product = |count: u64, side: &usize| count.checked_mul(*side as u64);
    let count = shape.iter().try_fold(1, product);
    let row = shape.last().copied().unwrap_or(1) as u64;
    let n_bytes = match stored {
        Stored::Plain(_) => count.and_then(|count| count.checked_mul(stored.value_bytes() as u64)),
        Stored::Unknown(_) => count.map(|_| 0),
        Stored::Blocks(blocks) => {
            let n_values = blocks.n_values() as u64;
            if !row.is_multiple_of(n_values) {
                let message =
                    format!("rows of {row} values, but {blocks} has blocks of {n_values}");
                return Err(broken(&message));
            }
            count.and_then(|count| (count / n_values).checked_mul(blocks.n_bytes() as u64))
        }
    };
    n_bytes.ok_or_else(|| broken(&format!("shape {shape:?} overflows")))
}

/// The shape before it was changed; it has as many values.
fn original(name: &str, shape: Vec<usize>, facts: &Facts) -> Result<Vec<usize>> {
    let Some(before) = facts.shapes.get(name) else {
        return Ok(shape);
    };
    let count = |shape: &[usize]| {
        let product = |count: usize, side: &usize| count.checked_mul(*side);
        shape.iter().try_fold(1, product)
    };
    if count(before) != count(&shape) {
        let message = format!("its metadata give the shape {before:?}, it has {shape:?}");
        return Err(broken(&message));
    }
    Ok(before.clone())
}

/// No name and no byte may be two tensors'.
fn distinct(mut announced: Vec<Announced>) -> Result<Vec<Announced>> {
    announced.sort_by_key(|one| (one.start, one.n_bytes));
    for (one, two) in announced.iter().zip(announced.iter().skip(1)) {
        if one.start + one.n_bytes > two.start {
            let message = format!("its data overlap those of `{}`", one.name);
            return Err(broken(&message).at_tensor(&two.name));
        }
    }
    announced.sort_by(|one, two| one.name.cmp(&two.name));
    for (one, two) in announced.iter().zip(announced.iter().skip(1)) {
        if one.name == two.name {
            return Err(broken("this name is there twice").at_tensor(&two.name));
        }
    }
    Ok(announced)
}

fn broken(message: &str) -> Error {
    let message = format!("this GGUF file is damaged: {message}");
    Error::new(ErrorKind::FileFormat, message)
}
