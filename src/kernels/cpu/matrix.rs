//! A matrix as it lies in memory: rows of f32, f16 or bf16, never rearranged.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Its values, row after row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// `[rows, depth]`
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub(super) values: Values<'a>,
    pub(super) rows: usize,
    pub(super) depth: usize,
}

impl Matrix<'_> {
    /// A part of one row in f32.
    pub(super) fn widen(&self, row: usize, first: usize, out: &mut [f32]) {
        let start = row * self.depth + first;
        let range = start..start + out.len();
        match self.values {
            Values::F32(all) => out.copy_from_slice(&all[range]),
            Values::F16(all) => all[range].convert_to_f32_slice(out),
            Values::Bf16(all) => {
                for (out, value) in out.iter_mut().zip(&all[range]) {
                    *out = value.to_f32();
                }
            }
        }
    }
}
