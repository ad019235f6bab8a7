//! What the kernels need of a vector unit, and the functions that are made of it. One body serves
//! every unit: `#[inline(always)]` carries it into entry points that have the unit's instructions on
//! (`isa.rs`).
#![expect(
    clippy::approx_constant,
    clippy::excessive_precision,
    reason = "coefficients as they were fitted, one of them near 2/√π"
)]

use half::{bf16, f16};

/// A vector unit. All methods are as safe as the instructions are there and the pointers hold so many
/// values; alignment does not matter.
pub(super) trait Simd: Copy {
    /// A vector of `LANES` values.
    type V: Copy;
    /// Values in a vector; divides [`COLUMNS`](super::panel::COLUMNS).
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn load_f16(from: *const f16) -> Self::V;
    unsafe fn load_bf16(from: *const bf16) -> Self::V;
    unsafe fn store(to: *mut f32, value: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Rounded to the nearest integer.
    unsafe fn round(a: Self::V) -> Self::V;
    /// Two to the power of an integer from -126 to 127.
    unsafe fn power_of_two(a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `sign`.
    unsafe fn with_sign(a: Self::V, sign: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    /// `a` where `x < y`, else `b`.
    unsafe fn where_less(x: Self::V, y: Self::V, a: Self::V, b: Self::V) -> Self::V;
}

/// Ends of the range in which `exp` neither overflows nor becomes subnormal.
const EXP_RANGE: [f32; 2] = [-87.0, 88.0];

/// Least squares at Chebyshev nodes of e^r for |r| ≤ ln2/2, relative error 3e-9.
const EXP: [f32; 7] = [
    1.0,
    1.0,
    0.5,
    0.166_664_15,
    0.041_666_22,
    0.008_375_129,
    0.001_394_858_1,
];

/// ln 2 in two parts, the first with few digits, so that its multiples are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// e^x within 2 units in the last place; below -87 it is e^-87, which is nothing beside any sum of
/// it with 1.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    let x = S::min(S::max(x, S::splat(EXP_RANGE[0])), S::splat(EXP_RANGE[1]));
    let whole = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let rest = S::fma(whole, S::splat(-LN_2[0]), x);
    let rest = S::fma(whole, S::splat(-LN_2[1]), rest);
    S::mul(polynomial::<S>(&EXP, rest), S::power_of_two(whole))
}

/// Where `erf` changes from one polynomial to the other.
const ERF_SMALL: f32 = 0.92;

/// `erf(z)/z` in powers of z² for |z| < 0.92, absolute error of `erf` 9e-8.
const ERF_INNER: [f32; 7] = [
    1.128_379_2,
    -0.376_126_34,
    0.112_837_02,
    -0.026_859_745,
    0.005_201_837_7,
    -8.151_341e-4,
    8.404_849_6e-5,
];

/// `-ln(erfc(z))` for 0.92 ≤ z ≤ 4, beyond which `erf` is 1; absolute error of `erf` 5e-8.
const ERF_OUTER: [f32; 9] = [
    -3.023_804_6e-4,
    1.130_163_4,
    0.631_942_66,
    0.109_973_12,
    -0.026_361_873,
    0.004_739_246,
    -5.925_663_8e-4,
    4.556_713_8e-5,
    -1.612_904_1e-6,
];

/// The error function, absolute error below 1.5e-7.
#[inline(always)]
pub(super) unsafe fn erf<S: Simd>(z: S::V) -> S::V {
    let size = S::min(S::abs(z), S::splat(4.0));
    let inner = S::mul(polynomial::<S>(&ERF_INNER, S::mul(z, z)), z);
    let tail = polynomial::<S>(&ERF_OUTER, size);
    let tail = exp::<S>(S::sub(S::splat(0.0), tail));
    let outer = S::with_sign(S::sub(S::splat(1.0), tail), z);
    S::where_less(size, S::splat(ERF_SMALL), inner, outer)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(super) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    let power = exp::<S>(S::sub(S::splat(0.0), x));
    S::div(S::splat(1.0), S::add(S::splat(1.0), power))
}

/// From the constant term up.
#[inline(always)]
unsafe fn polynomial<S: Simd>(terms: &[f32], x: S::V) -> S::V {
    let mut sum = S::splat(terms[terms.len() - 1]);
    for term in terms[..terms.len() - 1].iter().rev() {
        sum = S::fma(sum, x, S::splat(*term));
    }
    sum
}
