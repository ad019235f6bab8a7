//! A matrix as it lies in memory: rows of f32, f16 or bf16, never rearranged.

use half::{bf16, f16};

use super::simd::Simd;

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

impl<'a> Matrix<'a> {
    /// True if both have one shape and one type, so that what one product takes the other does.
    pub(super) fn is_like(&self, other: &Matrix<'_>) -> bool {
        let types = std::mem::discriminant(&self.values) == std::mem::discriminant(&other.values);
        types && (self.rows, self.depth) == (other.rows, other.depth)
    }

    /// A part of one row.
    pub(super) fn part(&self, row: usize, first: usize, count: usize) -> Values<'a> {
        let start = row * self.depth + first;
        let range = start..start + count;
        match self.values {
            Values::F32(all) => Values::F32(&all[range]),
            Values::F16(all) => Values::F16(&all[range]),
            Values::Bf16(all) => Values::Bf16(&all[range]),
        }
    }
}

/// Values in f32, as many as `out` has places.
///
/// # Safety
///
/// The unit must be there.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(values: Values<'_>, out: &mut [f32]) {
    match values {
        Values::F32(all) => out.copy_from_slice(all),
        Values::F16(all) => widen_by(all, out, S::LANES, |from, to| {
            S::store(to, S::load_f16(from));
        }),
        Values::Bf16(all) => widen_by(all, out, S::LANES, |from, to| {
            S::store(to, S::load_bf16(from));
        }),
    }
}

/// `vector` widens `lanes` values at once; the few that are left go one by one.
#[inline(always)]
fn widen_by<T: Copy + Into<f32>>(
    values: &[T],
    out: &mut [f32],
    lanes: usize,
    vector: impl Fn(*const T, *mut f32),
) {
    assert_eq!(values.len(), out.len());
    let (from, to) = (values.chunks_exact(lanes), out.chunks_exact_mut(lanes));
    let whole = values.len() - values.len() % lanes;
    for (from, to) in from.zip(to) {
        vector(from.as_ptr(), to.as_mut_ptr());
    }
    for (from, to) in values[whole..].iter().zip(&mut out[whole..]) {
        *to = (*from).into();
    }
}
