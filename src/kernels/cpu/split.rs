//! An f32 value as a sum of bf16 values, each holding the next eight digits: one part is bf16
//! precision, two are seventeen digits (more than f16 has), three are all of f32's. The matrix unit (`amx`) takes
//! matrices and panels so, AVX-512's products of bf16 (`dots.rs`) panels in one part.
//!
//! A product of two such sums needs only the products of parts that matter (Henry, Tang and Heinecke,
//! "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019).

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_cvtph_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_or_si512, _mm512_permutex2var_epi16, _mm512_permutexvar_epi16, _mm512_set1_epi32,
    _mm512_srli_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::mem::transmute;

use half::f16;

use super::amx::{DEEP, SIDE, VALUES};

/// Bits of an f32 value that bf16 keeps, and half of the first that it does not.
const KEPT: i32 = !0xffff;
const HALF: i32 = 0x8000;

/// A value's first eight digits, rounded, in the upper half of its bits; the lower means nothing.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn digits(values: __m512) -> __m512i {
    _mm512_add_epi32(_mm512_castps_si512(values), _mm512_set1_epi32(HALF))
}

/// What those digits leave of it, which is exact.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn rest(values: __m512, digits: __m512i) -> __m512 {
    let digits = _mm512_and_si512(digits, _mm512_set1_epi32(KEPT));
    _mm512_sub_ps(values, _mm512_castsi512_ps(digits))
}

/// The upper halves of two vectors, one vector behind the other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn behind(first: __m512i, second: __m512i) -> __m512i {
    static UPPER: [u16; DEEP] = {
        let mut places = [0; DEEP];
        let mut at: u16 = 0;
        while (at as usize) < DEEP {
            places[at as usize] = 2 * at + 1;
            at += 1;
        }
        places
    };
    let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
    _mm512_permutex2var_epi16(first, upper, second)
}

/// The same, value beside value.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn beside(first: __m512i, second: __m512i) -> __m512i {
    let second = _mm512_and_si512(second, _mm512_set1_epi32(KEPT));
    _mm512_or_si512(_mm512_srli_epi32::<16>(first), second)
}

/// Two vectors rounded to bf16, one behind the other.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn rounded(first: __m512, second: __m512) -> __m512i {
    transmute(_mm512_cvtne2ps_pbh(second, first))
}

/// The same, value beside value.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn rounded_beside(first: __m512, second: __m512) -> __m512i {
    static PAIRS: [u16; DEEP] = {
        let mut places = [0; DEEP];
        let mut at: u16 = 0;
        while (at as usize) < DEEP {
            places[at as usize] = at / 2 + at % 2 * 16;
            at += 1;
        }
        places
    };
    let pairs = _mm512_loadu_si512(PAIRS.as_ptr().cast());
    _mm512_permutexvar_epi16(pairs, rounded(first, second))
}

/// Splits two vectors, which go beside each other or one behind the other; each part goes two
/// registers behind the last, and the last is rounded to nearest, to even at a tie.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
unsafe fn split<const PARTS: usize, const BESIDE: bool>(
    [mut first, mut second]: [__m512; 2],
    to: *mut u16,
) {
    for part in 0..PARTS - 1 {
        let next = [digits(first), digits(second)];
        let both = if BESIDE {
            beside(next[0], next[1])
        } else {
            behind(next[0], next[1])
        };
        _mm512_storeu_si512(to.add(part * 2 * VALUES).cast(), both);
        (first, second) = (rest(first, next[0]), rest(second, next[1]));
    }
    let both = if BESIDE {
        rounded_beside(first, second)
    } else {
        rounded(first, second)
    };
    _mm512_storeu_si512(to.add((PARTS - 1) * 2 * VALUES).cast(), both);
}

/// Splits a part of a matrix's row into its row of the registers.
///
/// # Safety
///
/// The instructions are there; `to` holds a row of as many registers as the values need.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn row<const PARTS: usize>(row: &[f32], to: *mut u16) {
    for (step, values) in row.chunks_exact(DEEP).enumerate() {
        let values = values.as_ptr();
        let both = [_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(SIDE))];
        split::<PARTS, false>(both, to.add(step * PARTS * 2 * VALUES));
    }
}

/// The same for f16.
///
/// # Safety
///
/// As [`row`].
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn half_row<const PARTS: usize>(row: &[f16], to: *mut u16) {
    for (step, values) in row.chunks_exact(DEEP).enumerate() {
        let both = [&values[..SIDE], &values[SIDE..]];
        let both = both.map(|half| _mm512_cvtph_ps(_mm256_loadu_si256(half.as_ptr().cast())));
        split::<PARTS, false>(both, to.add(step * PARTS * 2 * VALUES));
    }
}

/// Splits sixteen columns of some rows of a panel, which are `stride` values apart; two rows' values go
/// side by side, as the unit takes them, and `step` values behind the two before.
///
/// # Safety
///
/// The instructions are there; `from` and `to` hold an even number of rows, and half as many.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw")]
pub(super) unsafe fn columns<const PARTS: usize>(
    from: *const f32,
    (rows, stride): (usize, usize),
    (to, step): (*mut u16, usize),
) {
    for pair in 0..rows / 2 {
        let from = from.add(2 * pair * stride);
        let both = [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(stride))];
        split::<PARTS, true>(both, to.add(pair * step));
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::amx::unit;
    use super::*;

    /// Values of all sizes and both signs, with all digits.
    fn values() -> Vec<f32> {
        let sign = |number: usize| if number.is_multiple_of(3) { -1.0 } else { 1.0 };
        let value = |number: usize| sign(number) * (1.0 + number as f32 * 0.012_345_679).powi(5);
        (0..DEEP).map(value).collect()
    }

    /// A row's parts, value by value.
    fn parts<const PARTS: usize>(row: &[f32]) -> Vec<[f32; PARTS]> {
        let mut to = vec![0; PARTS * 2 * VALUES];
        // SAFETY: the caller asked for the unit, and all parts have room.
        unsafe { super::row::<PARTS>(row, to.as_mut_ptr()) }
        let part = |place: usize, part: usize| bf16::from_bits(to[part * 2 * VALUES + place]);
        let of = |place| std::array::from_fn(|number| part(place, number).to_f32());
        (0..DEEP).map(of).collect()
    }

    #[test]
    fn three_parts_are_all_of_a_value_and_one_is_its_rounding() {
        if unit().is_none() {
            return;
        }
        let row = values();
        for (value, parts) in row.iter().zip(parts::<3>(&row)) {
            let sum: f64 = parts.iter().copied().map(f64::from).sum();
            assert_eq!(sum.to_bits(), f64::from(*value).to_bits(), "{value}");
        }
        for (value, [part]) in row.iter().zip(parts::<1>(&row)) {
            assert_eq!(part.to_bits(), bf16::from_f32(*value).to_f32().to_bits());
        }
    }

    #[test]
    fn two_parts_are_all_of_f16_and_nearly_all_of_f32() {
        if unit().is_none() {
            return;
        }
        let row = values();
        for (value, [first, second]) in row.iter().zip(parts::<2>(&row)) {
            let far = f64::from(first) + f64::from(second) - f64::from(*value);
            assert!(
                far.abs() <= f64::from(value.abs()) * 2_f64.powi(-17),
                "{value}"
            );
        }
        let halves: Vec<f16> = row.iter().map(|value| f16::from_f32(*value)).collect();
        let mut to = vec![0; 4 * VALUES];
        // SAFETY: the unit was asked for, and both parts have room.
        unsafe { half_row::<2>(&halves, to.as_mut_ptr()) }
        for (place, value) in halves.iter().enumerate() {
            let part = |part: usize| bf16::from_bits(to[part * 2 * VALUES + place]).to_f32();
            assert_eq!((part(0) + part(1)).to_bits(), value.to_f32().to_bits());
        }
    }

    #[test]
    fn columns_have_the_parts_of_rows_two_rows_side_by_side() {
        if unit().is_none() {
            return;
        }
        let row = values();
        let mut to = vec![0; 3 * 2 * VALUES];
        // SAFETY: the unit was asked for; two rows of sixteen values, and their parts have room.
        unsafe { columns::<3>(row.as_ptr(), (2, SIDE), (to.as_mut_ptr(), DEEP)) }
        for (place, parts) in parts::<3>(&row).iter().enumerate() {
            let (line, column) = (place / SIDE, place % SIDE);
            for (number, part) in parts.iter().enumerate() {
                let there = to[number * 2 * VALUES + 2 * column + line];
                let there = bf16::from_bits(there).to_f32().to_bits();
                assert_eq!(there, part.to_bits(), "{place} {number}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        if unit().is_none() {
            return;
        }
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0x7fc0_0000] {
            let row = vec![f32::from_bits(bits); DEEP];
            let any = |parts: &[f32]| parts.iter().any(|part| part.is_nan());
            assert!(parts::<1>(&row).iter().all(|parts| any(parts)), "{bits:x}");
            assert!(parts::<2>(&row).iter().all(|parts| any(parts)), "{bits:x}");
            assert!(parts::<3>(&row).iter().all(|parts| any(parts)), "{bits:x}");
        }
    }
}
