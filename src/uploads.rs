//! VALUES ON THEIR WAY TO A DEVICE: what is read part by part goes there part by part. While one part is
//! filled, those before it are copied.

use std::fmt;

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Fills the bytes of some values, the first of which has this number.
pub type Fill<'a> = dyn FnMut(usize, &mut [u8]) -> Result<()> + 'a;

/// A way to a device for values that come in parts.
pub trait Uploads: fmt::Debug + Send + Sync {
    /// A tensor `[n_values]` of this type, on the device. `fill` is called on this thread for one part after
    /// the other, with room for whole values, aligned as they are. Its first error ends it.
    fn upload(&self, dtype: DType, n_values: usize, fill: &mut Fill<'_>) -> Result<Tensor>;
}
