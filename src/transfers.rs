//! VALUES ON THEIR WAY TO A DEVICE AND BACK, part by part: while one part is filled or taken, others are
//! copied.

use std::fmt;

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Bytes from which a tensor goes in parts; fewer come as fast in one piece.
pub(crate) const IN_PARTS: usize = 1 << 20;

/// Fills the bytes of some values, the first of which has this number.
pub type Fill<'a> = dyn FnMut(usize, &mut [u8]) -> Result<()> + 'a;

/// Takes the bytes of some values, the first of which has this number.
pub type Take<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// A device's own way for large tensors. Parts are whole values, aligned as they are, one part after the
/// other; `fill` and `take` are called on this thread, and their first error ends it.
pub trait Transfers: fmt::Debug + Send + Sync {
    /// A tensor `[n_values]` of this type, on the device.
    fn upload(&self, dtype: DType, n_values: usize, fill: &mut Fill<'_>) -> Result<Tensor>;

    /// All values of a contiguous tensor that is on the device.
    fn download(&self, tensor: &Tensor, take: &mut Take<'_>) -> Result<()>;
}
