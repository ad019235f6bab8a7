//! A whole encoder as the fast paths see it: one call for all layers, so that they may fuse, keep
//! their own layouts between operations, and capture.

use candle_core::Tensor;

use super::Activation;
use crate::mapped::Mapped;

/// A matrix `[out, in]` of f32, f16 or bf16, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub enum MatrixOf<'a> {
    /// On the kernels' device.
    Tensor(&'a Tensor),
    /// One part below the other, all of one type and one shape, where this machine has a file in memory. Only kernels that
    /// [take](super::Kernels::takes_mapped) such matrices see them.
    Mapped(&'a [Mapped]),
}

impl<'a> MatrixOf<'a> {
    /// `None` for one in a file.
    pub fn tensor(self) -> Option<&'a Tensor> {
        match self {
            MatrixOf::Tensor(tensor) => Some(tensor),
            MatrixOf::Mapped(_) => None,
        }
    }
}

impl<'a> From<&'a Tensor> for MatrixOf<'a> {
    fn from(tensor: &'a Tensor) -> MatrixOf<'a> {
        MatrixOf::Tensor(tensor)
    }
}

/// A matrix `[out, in]` and its bias `[out]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The matrix.
    pub weight: MatrixOf<'a>,
    /// f32.
    pub bias: &'a Tensor,
}

/// Scale and shift of a layer norm, `[width]` each, f32.
#[derive(Clone, Copy, Debug)]
pub struct NormOf<'a> {
    /// What the normed value is multiplied by.
    pub weight: &'a Tensor,
    /// What is added then.
    pub bias: &'a Tensor,
}

/// The tensors of one pre-norm block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Before attention.
    pub norm1: NormOf<'a>,
    /// Query, key and value stacked on the rows: `[3·width, width]`.
    pub query_key_value: Product<'a>,
    /// After attention.
    pub out: Product<'a>,
    /// Before the MLP.
    pub norm2: NormOf<'a>,
    /// `[mlp, width]`
    pub up: Product<'a>,
    /// `[width, mlp]`
    pub down: Product<'a>,
}

/// The layers of one encoder, as many as are to be run, and what all of them share.
#[derive(Clone, Debug)]
pub struct Tower<'a> {
    /// From the first on.
    pub blocks: Vec<Block<'a>>,
    /// Attention heads.
    pub heads: usize,
    /// The MLPs' non-linearity.
    pub activation: Activation,
}
