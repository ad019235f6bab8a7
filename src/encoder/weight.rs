//! A MATRIX, however it is kept: as a tensor, quantized, or where the system has its file.

use std::str::FromStr as _;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{Kernels, MatrixOf, placed};
use crate::transfers::Transfers;
use crate::weights::{Mapped, TensorSource, Unchanging, stack};

/// Reads tensors of one encoder in all forms in which they are kept.
pub(super) struct Loader<'a> {
    pub(super) source: &'a dyn TensorSource,
    pub(super) kept: Kept,
    pub(super) device: &'a Device,
    pub(super) kernels: Arc<dyn Kernels>,
    pub(super) transfers: Option<&'a dyn Transfers>,
}

/// How an encoder's matrices are kept in memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Kept {
    /// The type of those that are not quantized.
    pub dtype: DType,
    /// What becomes of those that are.
    pub quantized: Quantized,
    /// On this machine's CPU matrices stay where the system has their file, if somebody promised that it does
    /// not change, if it has them row by row, and if that changes no bit of a result.
    pub mapped: Option<Unchanging>,
}

impl From<DType> for Kept {
    /// All expanded to one type.
    fn from(dtype: DType) -> Kept {
        Kept {
            dtype,
            quantized: Quantized::Expand,
            mapped: None,
        }
    }
}

/// What becomes of matrices that a file has quantized.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantized {
    /// They are expanded once, when they are loaded.
    Expand,
    /// They stay as they are and are expanded anew for each product: less memory, more time, the
    /// same numbers where the encoder is kept in f32.
    Keep,
}

/// A matrix, or some that are stacked on the rows.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    Dense(Tensor),
    /// At least one.
    Quantized(Arc<[QTensor]>),
    /// In a file, at least one below the other, all of one type and width. What is made of them elsewhere than
    /// in fast paths has this type.
    Mapped(Arc<[Mapped]>, DType),
}

impl Weight {
    /// Stacks of matrices, in their order; those that are read as tensors are read together.
    pub(super) fn load(load: &Loader<'_>, stacks: &[Vec<String>]) -> Result<Vec<Weight>> {
        let taken = |stored| load.kernels.takes_mapped(stored, load.kept.dtype);
        let other = stacks.iter().map(|names| match load.quantized(names)? {
            Some(quantized) => Ok(Some(quantized)),
            None => load.mapped(names, taken),
        });
        let other = other.collect::<Result<Vec<_>>>()?;
        let dense = stacks.iter().zip(&other);
        let dense = dense.filter_map(|(names, other)| other.is_none().then_some(names.clone()));
        let mut dense = load.stacks(&dense.collect::<Vec<_>>())?.into_iter();
        let weights = other.into_iter().map(|other| match other {
            Some(other) => Ok(other),
            None => Weight::of(dense.next().ok_or_else(too_few)?),
        });
        weights.collect()
    }

    /// A matrix of which rows are read, as [`Weight::rows`] does. Never quantized.
    pub(super) fn table(load: &Loader<'_>, name: &str) -> Result<Weight> {
        let kept = load.kept.dtype;
        // Kernels that take no matrix in a file may want the whole encoder as tensors.
        let takes = |stored| load.kernels.takes_mapped(stored, stored);
        let widened = |stored| takes(stored) && (stored == kept || kept == DType::F32);
        match load.mapped(&[name.to_owned()], widened)? {
            Some(mapped) => Ok(mapped),
            None => Ok(Weight::Dense(load.matrix(name)?)),
        }
    }

    /// A matrix that is not quantized, where it is read fastest.
    pub(super) fn of(matrix: Tensor) -> Result<Weight> {
        Ok(Weight::Dense(placed(matrix)?))
    }

    /// `[rows, columns]`
    pub(super) fn dims(&self) -> Result<[usize; 2]> {
        let (rows, columns) = match self {
            Weight::Dense(tensor) => tensor.dims2()?,
            Weight::Quantized(parts) => {
                let rows = parts.iter().map(|part| part.shape().dims2());
                let rows = rows.collect::<candle_core::Result<Vec<_>>>()?;
                let columns = rows.first().map_or(0, |(_, columns)| *columns);
                (rows.iter().map(|(rows, _)| rows).sum(), columns)
            }
            Weight::Mapped(parts, _) => {
                let columns = parts.first().map_or(0, |part| part.dims()[1]);
                (parts.iter().map(|part| part.dims()[0]).sum(), columns)
            }
        };
        Ok([rows, columns])
    }

    /// Of the tensor that it is or becomes.
    pub(super) fn dtype(&self) -> DType {
        match self {
            Weight::Dense(tensor) => tensor.dtype(),
            Weight::Quantized(_) => DType::F32,
            Weight::Mapped(_, kept) => *kept,
        }
    }

    /// The matrix as a tensor of the type in which it is kept; a copy where it is not one.
    pub(super) fn dense(&self) -> Result<Tensor> {
        match self {
            Weight::Dense(tensor) => Ok(tensor.clone()),
            Weight::Quantized(parts) => {
                let parts = parts.iter().map(|part| part.dequantize(&part.device()));
                stack(parts.collect::<candle_core::Result<_>>()?)
            }
            Weight::Mapped(parts, kept) => {
                let parts = parts.iter().map(Mapped::tensor);
                Ok(stack(parts.collect::<Result<_>>()?)?.to_dtype(*kept)?)
            }
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Weight::Mapped(..))
    }

    /// The tensor, if it is one.
    pub(super) fn tensor(&self) -> Option<&Tensor> {
        match self {
            Weight::Dense(tensor) => Some(tensor),
            Weight::Quantized(_) | Weight::Mapped(..) => None,
        }
    }

    /// The matrix as these kernels' fast paths take it, if they do.
    pub(super) fn fast(&self, kernels: &dyn Kernels) -> Option<MatrixOf<'_>> {
        match self {
            Weight::Dense(tensor) => Some(MatrixOf::Tensor(tensor)),
            Weight::Quantized(_) => None,
            Weight::Mapped(parts, kept) => {
                let taken = |part: &Mapped| kernels.takes_mapped(part.dtype(), *kept);
                (parts.iter().all(taken)).then_some(MatrixOf::Mapped(parts))
            }
        }
    }

    /// Some rows in f32: `[rows, width]`.
    pub(super) fn rows(&self, rows: Vec<u32>) -> Result<Tensor> {
        let mapped = match self {
            Weight::Mapped(parts, _) => <&[Mapped; 1]>::try_from(&**parts).ok(),
            Weight::Dense(_) | Weight::Quantized(_) => None,
        };
        let Some([table]) = mapped else {
            let table = self.dense()?;
            let rows = Tensor::new(rows, table.device())?;
            return Ok(table.index_select(&rows, 0)?.to_dtype(DType::F32)?);
        };
        let [n_rows, width] = table.dims();
        let values = table.rows(&rows).ok_or_else(|| {
            let message = format!("a token behind the last of {n_rows}");
            Error::new(ErrorKind::Request, message)
        })?;
        Ok(Tensor::from_vec(values, (rows.len(), width), &Device::Cpu)?)
    }
}

/// Whether one may lie below the other: kernels take such as are the same but for their values.
fn alike(one: &Mapped, other: &Mapped) -> bool {
    one.dims() == other.dims() && one.dtype() == other.dtype()
}

fn too_few() -> Error {
    let message = "the source gave fewer tensors than it was asked for";
    Error::new(ErrorKind::MissingTensor, message)
}

impl Loader<'_> {
    pub(super) fn matrix(&self, name: &str) -> Result<Tensor> {
        stack(self.stacks(&[vec![name.to_owned()]])?)
    }

    fn stacks(&self, names: &[Vec<String>]) -> Result<Vec<Tensor>> {
        let (source, dtype) = (self.source, self.kept.dtype);
        match self.transfers {
            Some(transfers) => source.load_stacks_by(transfers, names, dtype, self.device),
            None => source.load_stacks(names, dtype, self.device),
        }
    }

    /// Matrices that stay quantized, if that is wanted and the file has all of them so.
    fn quantized(&self, names: &[String]) -> Result<Option<Weight>> {
        if self.kept.quantized == Quantized::Expand {
            return Ok(None);
        }
        let kept = names.iter();
        let kept = kept.map(|name| self.source.load_quantized(name, self.device));
        let kept: Option<Arc<[QTensor]>> = kept.collect::<Result<_>>()?;
        Ok(kept.map(Weight::Quantized))
    }

    /// Matrices that stay in their file, if that is wanted, and wherever their type is taken.
    fn mapped(&self, names: &[String], taken: impl Fn(DType) -> bool) -> Result<Option<Weight>> {
        let Some(word) = self.kept.mapped.filter(|_| self.device.is_cpu()) else {
            return Ok(None);
        };
        if !self.stored(names).is_some_and(taken) {
            return Ok(None);
        }
        let map = |names: &[String]| self.source.map_stack(names, word);
        let parts = match map(names)? {
            Some(whole) => Some(vec![whole]),
            // One by one.
            None if names.len() > 1 => names.chunks(1).map(map).collect::<Result<_>>()?,
            None => None,
        };
        let parts = parts.filter(|parts| parts.windows(2).all(|two| alike(&two[0], &two[1])));
        Ok(parts.map(|parts| Weight::Mapped(parts.into(), self.kept.dtype)))
    }

    /// The type in which a file has all of these, if it is one that tensors have.
    fn stored(&self, names: &[String]) -> Option<DType> {
        let mut all = names.iter().map(|name| self.source.info(name));
        let stored = all.next()??.stored;
        let same = all.all(|info| info.is_some_and(|info| info.stored == stored));
        let dtype = DType::from_str(&stored.to_lowercase());
        dtype.ok().filter(|_| same)
    }

    pub(super) fn vector(&self, name: &str) -> Result<Tensor> {
        self.source.load(name, DType::F32, self.device)
    }

    /// One after the other, as one.
    pub(super) fn vectors(&self, names: Vec<String>) -> Result<Tensor> {
        stack(self.source.load_stacks(&[names], DType::F32, self.device)?)
    }
}
