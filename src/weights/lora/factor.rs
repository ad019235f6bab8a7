//! TENSORS OF A LORA → MATRICES. Shapes are checked when the file is fitted to an encoder, values
//! when they are read for it.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::{Archive, Entry};
use crate::weights::format::decode::{self, Flaw};

/// A tensor that was found to have the right shape.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    entry: Entry,
    shape: Vec<usize>,
}

/// Reads factors, as f32 on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) archive: &'a Archive,
    pub(super) device: &'a Device,
}

impl Factor {
    /// A matrix. Convolutions of one point, `[out, in, 1, 1]`, are matrices; larger ones are not.
    pub(super) fn matrix(entry: &Entry) -> Result<Factor> {
        let shape = match entry.shape[..] {
            [rows, columns] | [rows, columns, 1] | [rows, columns, 1, 1] => [rows, columns],
            [_, _, _] | [_, _, _, _] => {
                let message = "a convolution where a text encoder has matrices";
                return Err(wrong_shape(entry, message));
            }
            _ => return Err(wrong_shape(entry, "a matrix was expected")),
        };
        Factor::of(entry, shape.to_vec())
    }

    /// A tensor of exactly this shape, or of this shape and ones behind it.
    pub(super) fn exactly(entry: &Entry, shape: &[usize]) -> Result<Factor> {
        let rest = entry.shape.strip_prefix(shape);
        if rest.is_none_or(|rest| rest.iter().any(|side| *side != 1)) {
            let message = format!("the encoder's tensor is {shape:?}");
            return Err(wrong_shape(entry, &message));
        }
        Factor::of(entry, shape.to_vec())
    }

    /// A tensor taken as it is, looked at as `shape` with as many elements.
    pub(super) fn of(entry: &Entry, shape: Vec<usize>) -> Result<Factor> {
        if !entry.stored.is_weight() {
            let message = format!("type {} cannot hold the values of a LoRA", entry.stored);
            return Err(Error::new(ErrorKind::TensorValue, message).at_tensor(&entry.file_name));
        }
        if shape.contains(&0) {
            return Err(wrong_shape(entry, "it is empty: a rank or side of 0"));
        }
        let entry = entry.clone();
        Ok(Factor { entry, shape })
    }

    /// Rows.
    pub(super) fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Columns; a vector has one.
    pub(super) fn columns(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// As the file spells it.
    pub(super) fn name(&self) -> &str {
        &self.entry.file_name
    }

    /// The values in f32; NaN and infinity are refused.
    pub(super) fn read(&self, reader: Reader<'_>) -> Result<Tensor> {
        let entry = &self.entry;
        let bytes = reader.archive.read_all(entry)?;
        if let Some(Flaw::NotFinite(index) | Flaw::TooLarge(index)) =
            decode::flaw_as(&bytes, entry.stored, DType::F32)
        {
            let message = format!("value {index} is NaN or infinite, or too large for F32");
            let error = Error::new(ErrorKind::TensorValue, message).at_tensor(&entry.file_name);
            return Err(error.hint("its training diverged, or the file is damaged"));
        }
        decode::tensor(
            &bytes,
            entry.stored,
            &self.shape,
            None,
            DType::F32,
            reader.device,
        )
        .map_err(|error| error.at_tensor(&entry.file_name))
    }

    /// The values in f32 on the CPU, row by row.
    pub(super) fn values(&self, archive: &Archive) -> Result<Vec<f32>> {
        let device = &Device::Cpu;
        let tensor = self.read(Reader { archive, device })?;
        Ok(tensor.flatten_all()?.to_vec1()?)
    }
}

/// Two factors that are to be multiplied: columns of the first are rows of the second.
pub(super) fn product(left: &Factor, right: &Factor) -> Result<[usize; 2]> {
    if left.columns() != right.rows() {
        let message = format!(
            "`{}` is {:?} and `{}` is {:?}: their ranks {} and {} differ",
            left.name(),
            left.shape(),
            right.name(),
            right.shape(),
            left.columns(),
            right.rows()
        );
        return Err(Error::new(ErrorKind::Lora, message).at_tensor(left.name()));
    }
    Ok([left.rows(), right.columns()])
}

/// A number: `[]` or `[1]`, finite.
pub(super) fn number(entry: &Entry, archive: &Archive) -> Result<f64> {
    let wrong = |message: String| Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name);
    if entry.shape.iter().any(|side| *side != 1) {
        return Err(wrong(format!(
            "one number was expected, the shape is {:?}",
            entry.shape
        )));
    }
    let numbers = decode::numbers(&archive.read_all(entry)?, entry.stored);
    let numbers = numbers.map_err(|error| error.at_tensor(&entry.file_name))?;
    match numbers[..] {
        [number] if number.is_finite() => Ok(f64::from(number)),
        _ => Err(wrong(format!("{numbers:?} is no finite number"))),
    }
}

fn wrong_shape(entry: &Entry, message: &str) -> Error {
    let message = format!("shape {:?}: {message}", entry.shape);
    Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name)
}
