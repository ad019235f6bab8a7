//! One array in numpy's `.npy` format, versions 1 to 3 (`numpy/lib/format.py`). Little-endian
//! floating point in row order is read and written; everything else is refused by name.

use candle_core::{DType, Device, Tensor};
use safetensors::View as _;

use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The data begin at a multiple of this (`ARRAY_ALIGN`).
const ALIGNMENT: usize = 64;

/// The types that are written and read, as numpy's headers name them.
const TYPES: [(&str, DType); 3] = [
    ("<f2", DType::F16),
    ("<f4", DType::F32),
    ("<f8", DType::F64),
];

/// The bytes of a file.
pub(super) fn write(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let descr = TYPES.iter().find(|(_, dtype)| *dtype == tensor.dtype());
    let (descr, _) = descr.ok_or_else(|| {
        let message = format!("numpy has no type for {:?}", tensor.dtype());
        Error::new(ErrorKind::Unsupported, message).hint("write f32 or f16")
    })?;
    let header = padded_header(descr, tensor.dims());
    let length = u16::try_from(header.len());
    let length = length.map_err(|_| broken("a shape with too many sides"))?;
    let mut bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend_from_slice(&tensor.data());
    Ok(bytes)
}

/// The dictionary, with spaces behind it up to where the data begin.
fn padded_header(descr: &str, dims: &[usize]) -> String {
    let sides: Vec<String> = dims.iter().map(ToString::to_string).collect();
    // One side alone needs a comma to be a tuple.
    let shape = match &sides[..] {
        [one] => format!("{one},"),
        all => all.join(", "),
    };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let fixed = MAGIC.len() + 4 + 1;
    let padded = (fixed + header.len()).next_multiple_of(ALIGNMENT) - fixed;
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    header.push('\n');
    header
}

/// The array in a file's bytes. No more is allocated than they are.
pub(super) fn read(bytes: &[u8]) -> Result<Tensor> {
    let (outline, data) = outline(bytes)?;
    outline.expect_length(data.len())?;
    let Outline { dtype, shape } = outline;
    Ok(Tensor::from_raw_buffer(data, dtype, &shape, &Device::Cpu)?)
}

/// Type and shape of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

impl Outline {
    /// What a file's beginning says, if that fits the length of the whole file.
    pub(super) fn of(beginning: &[u8], length: usize) -> Result<Outline> {
        let (outline, data) = outline(beginning)?;
        let header = beginning.len() - data.len();
        let n_bytes = length.checked_sub(header);
        outline.expect_length(n_bytes.ok_or_else(|| broken("cut off within its header"))?)?;
        Ok(outline)
    }

    fn expect_length(&self, n_bytes: usize) -> Result<()> {
        let Outline { dtype, shape } = self;
        let mut sides = shape.iter();
        let wanted = sides.try_fold(dtype.size_in_bytes(), |product, side| {
            product.checked_mul(*side)
        });
        if wanted == Some(n_bytes) {
            return Ok(());
        }
        let message = format!("shape {shape:?} of {dtype:?} does not fit {n_bytes} bytes");
        Err(broken(message))
    }
}

/// What a file's header says, and what stands behind it.
fn outline(bytes: &[u8]) -> Result<(Outline, &[u8])> {
    let (header, data) = split(bytes)?;
    let text = std::str::from_utf8(header).map_err(|_| broken("its header is not text"))?;
    let dtype = dtype(value(text, "descr")?.trim_matches(['\'', '"']))?;
    if value(text, "fortran_order")? != "False" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "an array in column order",
        ));
    }
    let shape = shape(value(text, "shape")?)?;
    Ok((Outline { dtype, shape }, data))
}

fn dtype(descr: &str) -> Result<DType> {
    let dtype = TYPES.iter().find(|(name, _)| *name == descr);
    dtype.map(|(_, dtype)| *dtype).ok_or_else(|| {
        let message = format!("numbers of the type `{descr}`; `<f2`, `<f4` and `<f8` are read");
        Error::new(ErrorKind::Unsupported, message)
    })
}

/// Header and data.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| broken("this is no array of numpy"))?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, *d]);
            (usize::try_from(length).unwrap_or(usize::MAX), rest)
        }
        _ => return Err(broken("an unknown version, or cut off")),
    };
    rest.split_at_checked(length)
        .ok_or_else(|| broken("cut off within its header"))
}

/// What stands behind a key of the header, a Python dictionary with three fixed keys.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let lost = || broken(format!("its header has no `{key}`"));
    let (_, rest) = header.split_once(&format!("'{key}':")).ok_or_else(lost)?;
    let rest = rest.trim_start();
    let end = match rest.strip_prefix('(') {
        Some(inner) => inner.find(')').map(|end| end + 2),
        None => rest.find([',', '}']),
    };
    Ok(rest[..end.ok_or_else(lost)?].trim_end())
}

/// `(77, 768)`, `(77,)` or `()`.
fn shape(text: &str) -> Result<Vec<usize>> {
    let wrong = || broken(format!("`{text}` is no shape"));
    let inner = text
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    let sides = inner.ok_or_else(wrong)?.split(',').map(str::trim);
    sides
        .filter(|side| !side.is_empty())
        .map(|side| side.parse::<usize>().map_err(|_| wrong()))
        .collect()
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::FileFormat, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap_or(u16::MAX);
        [
            MAGIC,
            &[1, 0],
            &length.to_le_bytes(),
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    #[test]
    fn shapes_of_python() -> Result<()> {
        let read = |shape: &str, n: usize| {
            let header =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}    \n");
            read(&array(&header, &vec![0; n * 4])).map(|tensor| tensor.dims().to_vec())
        };
        assert_eq!(read("()", 1)?, [0_usize; 0]);
        assert_eq!(read("(3,)", 3)?, [3]);
        assert_eq!(read("(2, 3)", 6)?, [2, 3]);
        for wrong in [
            "(3,",
            "(-1,)",
            "(4294967295, 4294967295, 4294967295)",
            "3",
            "(x,)",
        ] {
            assert!(read(wrong, 3).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn every_cut_is_refused() -> Result<()> {
        let whole = write(&Tensor::arange(0_f32, 6.0, &Device::Cpu)?.reshape((2, 3))?)?;
        assert_eq!(
            read(&whole)?.to_vec2::<f32>()?,
            [[0., 1., 2.], [3., 4., 5.]]
        );
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        Ok(())
    }
}
