//! How a file stores values: plain numbers, ggml's blocks, or something that cannot be read.

use std::fmt;

use safetensors::Dtype;

use super::blocks::Blocks;

/// The type of a tensor's values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// One number after the other.
    Plain(Dtype),
    /// Blocks of some dozen numbers with common scales, as ggml quantizes.
    #[cfg_attr(
        not(feature = "gguf"),
        expect(dead_code, reason = "only GGUF has them")
    )]
    Blocks(Blocks),
    /// A type of ggml's that is not known here, by its number. It can be listed, but not read.
    #[cfg_attr(
        not(feature = "gguf"),
        expect(dead_code, reason = "only GGUF has them")
    )]
    Unknown(u32),
}

impl Stored {
    /// True for the types that hold weights: floating point of 8 bits (in two forms) to 64, and
    /// blocks.
    pub(crate) const fn is_weight(self) -> bool {
        match self {
            Stored::Plain(dtype) => {
                matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) || self.is_fp8()
            }
            Stored::Blocks(_) => true,
            Stored::Unknown(_) => false,
        }
    }

    /// Bytes of one value; 1 where values have none of their own.
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Stored::Plain(dtype) if dtype.bitsize() >= 8 => dtype.bitsize() / 8,
            Stored::Plain(_) | Stored::Blocks(_) | Stored::Unknown(_) => 1,
        }
    }

    /// True for the two 8-bit types that text encoders are stored in.
    pub(crate) const fn is_fp8(self) -> bool {
        matches!(self, Stored::Plain(Dtype::F8_E4M3 | Dtype::F8_E5M2))
    }
}

impl From<Dtype> for Stored {
    fn from(dtype: Dtype) -> Stored {
        Stored::Plain(dtype)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::Plain(dtype) => dtype.fmt(f),
            Stored::Blocks(blocks) => blocks.fmt(f),
            Stored::Unknown(number) => write!(f, "number {number} of ggml"),
        }
    }
}

/// How values lie in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Row by row, without gaps.
    Dense,
    /// With these distances from one value to the next in each dimension, counted in values: a view
    /// that a pickle has of a larger or a transposed tensor.
    #[cfg_attr(
        not(feature = "pickle"),
        expect(dead_code, reason = "only pickles have it")
    )]
    Strided(Vec<u64>),
}
