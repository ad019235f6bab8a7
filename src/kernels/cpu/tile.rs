//! The innermost product: a few rows of a matrix times one window's panel.

use super::ahead::Ahead;
use super::panel::COLUMNS;
use super::simd::Simd;

/// Where the factors of a tile lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    /// `w[n, k]` is at `w[n · steps.0 + k · steps.1]`, aligned or not.
    pub(super) w: *const f32,
    pub(super) steps: (usize, usize),
    /// `depth` rows of [`COLUMNS`].
    pub(super) x: *const f32,
    pub(super) depth: usize,
    /// What the sums are added to.
    pub(super) before: Before,
    /// What is asked for meanwhile, a little at each [`STRIDE`].
    pub(super) ahead: Ahead,
}

/// What is there before a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// If what stands in the result's place counts. Else it is nothing.
    pub(super) kept: bool,
    /// One more value for each row, or null.
    pub(super) bias: *const f32,
}

impl Before {
    /// Nothing.
    pub(super) const NOTHING: Before = Before {
        kept: false,
        bias: std::ptr::null(),
    };

    /// The sums of other values of `k`.
    pub(super) const SUMS: Before = Before {
        kept: true,
        ..Before::NOTHING
    };
}

/// Values of `k` between two requests for what is needed next: a line of f32.
const STRIDE: usize = 16;

/// What a value of `k` is: how the values of a vector are multiplied and added.
pub(super) trait Multiply<S: Simd> {
    /// `sum + x · w` in each place.
    unsafe fn add(x: S::V, w: S::V, sum: S::V) -> S::V;
}

/// A value of f32.
pub(super) struct Float;

impl<S: Simd> Multiply<S> for Float {
    #[inline(always)]
    unsafe fn add(x: S::V, w: S::V, sum: S::V) -> S::V {
        S::fma(x, w, sum)
    }
}

/// `c[n, :] = before + Σₖ w[n, k] · x[k, :]` for `N` rows `n` and `depth` values of `k`; `A` vectors of
/// columns at once, which with `N` must fill the vector unit's registers and no more.
///
/// # Safety
///
/// The factors are where they are said to be; `c` holds `N` rows of [`COLUMNS`].
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, M: Multiply<S>, const N: usize, const A: usize>(
    factors: Factors,
    c: *mut f32,
) {
    let Factors { steps, depth, .. } = factors;
    for first in (0..COLUMNS).step_by(A * S::LANES) {
        let (mut w, mut x) = (factors.w, factors.x.add(first));
        let mut sums = [[S::splat(0.0); A]; N];
        for from in (0..depth).step_by(STRIDE) {
            if first == 0 {
                factors.ahead.ask(from, 1);
            }
            for _ in from..depth.min(from + STRIDE) {
                multiply::<S, M, N, A, 0>((w, steps.0), x, &mut sums);
                (w, x) = (w.wrapping_add(steps.1), x.wrapping_add(COLUMNS));
            }
        }
        put::<S, N, A, 0>(&sums, factors.before, c.add(first));
    }
}

/// Puts sums in their place, those of vectors from `FROM` on.
#[inline(always)]
pub(super) unsafe fn put<S: Simd, const N: usize, const A: usize, const FROM: usize>(
    sums: &[[S::V; A]; N],
    before: Before,
    c: *mut f32,
) {
    for (n, sums) in sums.iter().enumerate() {
        let bias = if before.bias.is_null() {
            S::splat(0.0)
        } else {
            S::splat(*before.bias.add(n))
        };
        for (a, sum) in (FROM..A).zip(&sums[FROM..]) {
            let c = c.add(n * COLUMNS + a * S::LANES);
            let there = if before.kept {
                S::add(S::load(c), bias)
            } else {
                bias
            };
            S::store(c, S::add(*sum, there));
        }
    }
}

/// One value of `k`, for vectors from `FROM` on; the rows' weights are `step` values apart.
#[inline(always)]
pub(super) unsafe fn multiply<
    S: Simd,
    M: Multiply<S>,
    const N: usize,
    const A: usize,
    const FROM: usize,
>(
    (w, step): (*const f32, usize),
    x: *const f32,
    sums: &mut [[S::V; A]; N],
) {
    let mut across = [S::splat(0.0); A];
    for (a, part) in (FROM..A).zip(&mut across[FROM..]) {
        *part = S::load(x.add(a * S::LANES));
    }
    for (n, sums) in sums.iter_mut().enumerate() {
        let weight = S::splat(w.add(n * step).read_unaligned());
        for (sum, part) in sums[FROM..].iter_mut().zip(&across[FROM..]) {
            *sum = M::add(*part, weight, *sum);
        }
    }
}
