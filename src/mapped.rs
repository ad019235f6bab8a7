//! MATRICES WHERE THE SYSTEM HAS THEIR FILE: nothing is copied and no memory is taken for them, but what is
//! done to the file shows.
#![expect(
    unsafe_code,
    reason = "a mapped file is memory that others can write; the caller promises that nobody does"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::slice::HalfBitsSliceExt as _;
use half::{bf16, f16};
use memmap2::{Mmap, MmapOptions};

use crate::error::Result;

/// A caller's word that files do not change while anything reads them where they are mapped.
///
/// ```
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize, weights::Unchanging};
/// // SAFETY: these weights come from no file at all.
/// let word = unsafe { Unchanging::promised() };
/// let builder = Conditioner::builder().map_files(word);
/// let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
/// assert_eq!(text.encode("a cat")?.context().dims(), [1, 77, 128]);
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unchanging(());

impl Unchanging {
    /// Gives the word.
    ///
    /// # Safety
    ///
    /// No program may write to a file that is loaded by this word, or cut it short, as long as anything that
    /// was loaded lives: results would change, and reading what is gone ends the process (`SIGBUS`). So does a
    /// disk or a network that fails while the file is read, which is an error otherwise.
    /// Replacing the file by another of its name, as downloads and package managers do, is no change to it.
    #[must_use]
    pub const unsafe fn promised() -> Unchanging {
        Unchanging(())
    }
}

/// A file in memory. An error where the system does not map it, such as an empty one.
pub(crate) fn map(file: &File, _: Unchanging) -> io::Result<Mmap> {
    // SAFETY: nobody changes the file, which is what the word says.
    unsafe { MmapOptions::new().map(file) }
}

/// A matrix in a file, `[rows, columns]`, of f32, f16 or bf16. Whoever holds it holds the file in memory.
#[derive(Clone, Debug)]
pub struct Mapped {
    file: Arc<Mmap>,
    /// Of its bytes.
    place: Range<usize>,
    shape: [usize; 2],
    dtype: DType,
}

/// Its values, row after row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MappedValues<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Mapped {
    /// `None` if no such matrix can lie there: behind the file's end, at a place where no value of this type
    /// begins, or of other types; and on machines whose bytes are in another order.
    pub(crate) fn new(
        file: Arc<Mmap>,
        start: u64,
        shape: [usize; 2],
        dtype: DType,
    ) -> Option<Mapped> {
        let known = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        if !known || cfg!(target_endian = "big") {
            return None;
        }
        let size = dtype.size_in_bytes();
        let start = usize::try_from(start).ok()?;
        let n_bytes = shape[0].checked_mul(shape[1])?.checked_mul(size)?;
        let place = start..start.checked_add(n_bytes)?;
        let bytes = file.get(place.clone())?;
        bytes.as_ptr().addr().is_multiple_of(size).then_some(())?;
        Some(Mapped {
            file,
            place,
            shape,
            dtype,
        })
    }

    /// `[rows, columns]`
    pub fn dims(&self) -> [usize; 2] {
        self.shape
    }

    /// f32, f16 or bf16.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file[self.place.clone()]
    }

    pub(crate) fn values(&self) -> MappedValues<'_> {
        let halves = || bytemuck::cast_slice::<u8, u16>(self.bytes());
        match self.dtype {
            DType::F16 => MappedValues::F16(halves().reinterpret_cast()),
            DType::BF16 => MappedValues::Bf16(halves().reinterpret_cast()),
            _ => MappedValues::F32(bytemuck::cast_slice(self.bytes())),
        }
    }

    /// A copy in memory of its own.
    pub fn tensor(&self) -> Result<Tensor> {
        let (shape, cpu) = (&self.shape, &Device::Cpu);
        Ok(Tensor::from_raw_buffer(
            self.bytes(),
            self.dtype,
            shape,
            cpu,
        )?)
    }

    /// Some of its rows, in f32. `None` if one is behind the last.
    pub(crate) fn rows(&self, rows: &[u32]) -> Option<Vec<f32>> {
        let [n_rows, columns] = self.shape;
        let mut all = Vec::with_capacity(rows.len() * columns);
        for row in rows {
            let row = usize::try_from(*row).ok().filter(|row| *row < n_rows)?;
            let place = row * columns..(row + 1) * columns;
            match self.values() {
                MappedValues::F32(values) => all.extend_from_slice(&values[place]),
                MappedValues::F16(values) => {
                    all.extend(values[place].iter().map(|value| value.to_f32()));
                }
                MappedValues::Bf16(values) => {
                    all.extend(values[place].iter().map(|value| value.to_f32()));
                }
            }
        }
        Some(all)
    }
}

/// A file of such bytes.
#[cfg(test)]
pub(crate) fn file(bytes: &[u8]) -> Arc<Mmap> {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    // SAFETY: nobody else knows the file.
    let word = unsafe { Unchanging::promised() };
    Arc::new(map(&file, word).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_file() {
        let values = [0.5_f32, -2.0, 3.25, 1e-7, -0.0, 8.0];
        let halves = values.map(|value| f16::from_f32(value).to_le_bytes());
        let brains = values.map(|value| bf16::from_f32(value).to_le_bytes());
        let singles = values.map(f32::to_le_bytes);
        let kinds = [
            (DType::F32, singles.concat()),
            (DType::F16, halves.concat()),
            (DType::BF16, brains.concat()),
        ];
        for (dtype, bytes) in kinds {
            let file = file(&[&[7; 8], bytes.as_slice()].concat());
            let matrix = Mapped::new(file, 8, [3, 2], dtype).unwrap();
            let whole = Tensor::from_raw_buffer(&bytes, dtype, &[3, 2], &Device::Cpu).unwrap();
            let wide = |tensor: &Tensor| {
                let wide = tensor.to_dtype(DType::F32).unwrap();
                wide.to_vec2::<f32>().unwrap()
            };
            assert_eq!(wide(&matrix.tensor().unwrap()), wide(&whole), "{dtype:?}");
            let [first, _, last] = &wide(&whole)[..] else {
                panic!("three rows")
            };
            let some = matrix.rows(&[2, 0]).unwrap();
            assert_eq!(some, [last.as_slice(), first].concat(), "{dtype:?}");
            assert!(matrix.rows(&[3]).is_none());
        }
    }

    #[test]
    fn what_cannot_lie_there_is_none() {
        let file = file(&[1; 24]);
        let new = |start, shape, dtype| Mapped::new(Arc::clone(&file), start, shape, dtype);
        assert!(new(0, [3, 2], DType::F32).is_some());
        assert!(new(2, [2, 2], DType::F16).is_some());
        assert!(new(2, [2, 2], DType::F32).is_none(), "between two values");
        assert!(new(1, [2, 2], DType::BF16).is_none(), "between two values");
        assert!(new(4, [3, 2], DType::F32).is_none(), "behind the end");
        assert!(new(u64::MAX, [1, 1], DType::F16).is_none());
        assert!(new(0, [usize::MAX, 2], DType::F16).is_none());
        assert!(new(0, [3, 1], DType::F64).is_none(), "another type");
    }
}
