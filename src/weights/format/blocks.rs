//! ggml's quantized blocks → numbers. The arithmetic is candle's.

use std::borrow::Cow;
use std::fmt;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use crate::error::{Error, ErrorKind, Result};

/// A type of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks(GgmlDType);

/// Numbers of `enum ggml_type` in `ggml.h`, candle's types, and the names that people know.
const TYPES: [(u32, GgmlDType, &str); 12] = [
    (2, GgmlDType::Q4_0, "Q4_0"),
    (3, GgmlDType::Q4_1, "Q4_1"),
    (6, GgmlDType::Q5_0, "Q5_0"),
    (7, GgmlDType::Q5_1, "Q5_1"),
    (8, GgmlDType::Q8_0, "Q8_0"),
    (9, GgmlDType::Q8_1, "Q8_1"),
    (10, GgmlDType::Q2K, "Q2_K"),
    (11, GgmlDType::Q3K, "Q3_K"),
    (12, GgmlDType::Q4K, "Q4_K"),
    (13, GgmlDType::Q5K, "Q5_K"),
    (14, GgmlDType::Q6K, "Q6_K"),
    (15, GgmlDType::Q8K, "Q8_K"),
];

/// What candle's blocks of all types are aligned to, at most.
const ALIGNMENT: usize = 8;

impl Blocks {
    /// The type with this number in `ggml.h`.
    #[cfg_attr(
        not(feature = "gguf"),
        expect(dead_code, reason = "only GGUF has them")
    )]
    pub(crate) fn numbered(number: u32) -> Option<Blocks> {
        let found = TYPES.iter().find(|(other, ..)| *other == number);
        found.map(|(_, dtype, _)| Blocks(*dtype))
    }

    /// Numbers in a block.
    pub(crate) fn n_values(self) -> usize {
        self.0.block_size()
    }

    /// Bytes of a block.
    pub(crate) fn n_bytes(self) -> usize {
        self.0.type_size()
    }

    /// All values of some whole blocks.
    pub(crate) fn values(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let count = bytes.len() / self.n_bytes() * self.n_values();
        let tensor = self.tensor(bytes, &[count], &Device::Cpu)?;
        Ok(tensor.dequantize(&Device::Cpu)?.to_vec1()?)
    }

    /// A tensor that stays quantized.
    pub(crate) fn tensor(self, bytes: &[u8], shape: &[usize], device: &Device) -> Result<QTensor> {
        let count: usize = shape.iter().product();
        let whole = count.is_multiple_of(self.n_values())
            && bytes.len() == count / self.n_values() * self.n_bytes();
        if !whole {
            let message = format!("{} bytes of {self} for shape {shape:?}", bytes.len());
            return Err(Error::new(ErrorKind::TensorShape, message));
        }
        aligned(bytes, |bytes| {
            let storage = QStorage::from_data(Cow::Borrowed(bytes), device, self.0)?;
            Ok(QTensor::new(storage, shape)?)
        })
    }
}

/// The same blocks on another device.
pub(crate) fn moved(tensor: &QTensor, device: &Device) -> Result<QTensor> {
    aligned(&tensor.data()?, |bytes| {
        let storage = QStorage::from_data(Cow::Borrowed(bytes), device, tensor.dtype())?;
        Ok(QTensor::new(storage, tensor.shape())?)
    })
}

/// candle panics for bytes that do not lie as its blocks must.
fn aligned<T>(bytes: &[u8], then: impl FnOnce(&[u8]) -> T) -> T {
    let mut room = vec![0; bytes.len() + ALIGNMENT];
    let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let room = &mut room[start..start + bytes.len()];
    room.copy_from_slice(bytes);
    then(room)
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TYPES.iter().find(|(_, dtype, _)| *dtype == self.0);
        f.write_str(name.map_or("blocks", |(.., name)| *name))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;

    #[test]
    fn moved_blocks_are_the_same() {
        let values: Vec<f32> = (0..256).map(|number| 0.1 * number as f32 - 3.0).collect();
        let tensor = Tensor::from_vec(values, (1, 256), &Device::Cpu).unwrap();
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K] {
            let blocks = QTensor::quantize(&tensor, dtype).unwrap();
            let there = moved(&blocks, &Device::Cpu).unwrap();
            assert_eq!((there.dtype(), there.shape()), (dtype, blocks.shape()));
            assert_eq!(there.data().unwrap(), blocks.data().unwrap());
        }
    }
}
