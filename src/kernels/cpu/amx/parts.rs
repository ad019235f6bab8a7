//! An f32 value as a sum of bf16 values, each holding the next eight digits: one part is bf16
//! precision, two are seventeen digits (more than f16 has), three are all of f32's.
//!
//! A product of two such sums needs only the products of parts that matter (Henry, Tang and Heinecke,
//! "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019).

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_cvtph_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_or_si512, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::mem::transmute;

use half::{bf16, f16};

use super::super::panel::COLUMNS;
use super::unit::{DEEP, SIDE, VALUES};

/// Sixteen values, rounded to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn rounded(values: __m512) -> __m256i {
    transmute(_mm512_cvtneps_pbh(values))
}

/// The same as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn widened(values: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values)))
}

/// Splits sixteen values; each part goes two registers behind the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn split<const PARTS: usize>(mut rest: __m512, to: *mut u16) {
    for part in 0..PARTS {
        let digits = rounded(rest);
        _mm256_storeu_si256(to.add(part * 2 * VALUES).cast(), digits);
        rest = _mm512_sub_ps(rest, widened(digits));
    }
}

/// Where the sixteen values with this number go in their row of the registers.
const fn place<const PARTS: usize>(number: usize) -> usize {
    number / 2 * PARTS * 2 * VALUES + number % 2 * SIDE
}

/// Splits a part of a matrix's row into its row of the registers.
///
/// # Safety
///
/// The instructions are there; `to` holds a row of as many registers as the values need.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn split_row<const PARTS: usize>(row: &[f32], to: *mut u16) {
    for (number, values) in row.chunks_exact(SIDE).enumerate() {
        let values = _mm512_loadu_ps(values.as_ptr());
        split::<PARTS>(values, to.add(place::<PARTS>(number)));
    }
}

/// The same for f16.
///
/// # Safety
///
/// As [`split_row`].
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn split_half_row<const PARTS: usize>(row: &[f16], to: *mut u16) {
    for (number, values) in row.chunks_exact(SIDE).enumerate() {
        let values = _mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast()));
        split::<PARTS>(values, to.add(place::<PARTS>(number)));
    }
}

/// The same for bf16, which is its only part.
///
/// # Safety
///
/// As [`split_row`].
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn copy_row(row: &[bf16], to: *mut u16) {
    for (step, values) in row.chunks_exact(DEEP).enumerate() {
        let values = _mm512_loadu_si512(values.as_ptr().cast());
        _mm512_storeu_si512(to.add(step * 2 * VALUES).cast(), values);
    }
}

/// Splits two rows of a panel, whose values go side by side, as the unit takes them: `[80, 2]`; each
/// part `stride` values behind the last.
///
/// # Safety
///
/// The instructions are there; `from` holds two rows of [`COLUMNS`], `to` all of the parts.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn split_pair<const PARTS: usize>(from: *const f32, to: *mut u16, stride: usize) {
    for column in (0..COLUMNS).step_by(SIDE) {
        let mut even = _mm512_loadu_ps(from.add(column));
        let mut odd = _mm512_loadu_ps(from.add(COLUMNS + column));
        for part in 0..PARTS {
            let (low, high) = (rounded(even), rounded(odd));
            let to = to.add(part * stride + 2 * column);
            _mm512_storeu_si512(to.cast(), paired(low, high));
            even = _mm512_sub_ps(even, widened(low));
            odd = _mm512_sub_ps(odd, widened(high));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn paired(low: __m256i, high: __m256i) -> __m512i {
    let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high));
    _mm512_or_si512(_mm512_cvtepu16_epi32(low), high)
}
