//! Layer norm over the features of each token.

use super::panel::COLUMNS;
use super::simd::Simd;
use crate::kernels::reference::LAYER_NORM_EPSILON;

/// Sums that run beside each other, so that an addition need not wait for the one before.
const CHAINS: usize = 4;

/// A panel's place and what it is normed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub(super) x: *const f32,
    pub(super) features: usize,
    pub(super) weight: *const f32,
    pub(super) bias: *const f32,
    pub(super) out: *mut f32,
}

/// Norms the tokens of sixteen columns from `first` on.
///
/// # Safety
///
/// `x` and `out` are panels of `features` rows, `weight` and `bias` hold `features` values.
#[inline(always)]
pub(super) unsafe fn norm<S: Simd>(norm: Norm, first: usize) {
    for column in (first..first + 16).step_by(S::LANES) {
        let Norm {
            x,
            features,
            weight,
            bias,
            out,
        } = norm;
        let (x, out) = (x.add(column), out.add(column));
        let share = S::splat(1.0 / features as f32);
        let mean = S::mul(sum::<S>(x, features, S::splat(0.0), false), share);
        let variance = S::mul(sum::<S>(x, features, mean, true), share);
        let spread = S::sqrt(S::add(variance, S::splat(LAYER_NORM_EPSILON)));
        let scale = S::div(S::splat(1.0), spread);
        for feature in 0..features {
            let value = S::sub(S::load(x.add(feature * COLUMNS)), mean);
            let weight = S::splat(*weight.add(feature));
            let value = S::fma(S::mul(value, scale), weight, S::splat(*bias.add(feature)));
            S::store(out.add(feature * COLUMNS), value);
        }
    }
}

/// The sum of `x - mean`, or of its squares, down the rows.
#[inline(always)]
unsafe fn sum<S: Simd>(x: *const f32, features: usize, mean: S::V, squares: bool) -> S::V {
    let mut sums = [S::splat(0.0); CHAINS];
    let whole = features - features % CHAINS;
    for feature in (0..whole).step_by(CHAINS) {
        for (chain, sum) in sums.iter_mut().enumerate() {
            *sum = added::<S>(x.add((feature + chain) * COLUMNS), mean, squares, *sum);
        }
    }
    for feature in whole..features {
        sums[0] = added::<S>(x.add(feature * COLUMNS), mean, squares, sums[0]);
    }
    S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))
}

#[inline(always)]
unsafe fn added<S: Simd>(x: *const f32, mean: S::V, squares: bool, sum: S::V) -> S::V {
    let value = S::sub(S::load(x), mean);
    if squares {
        S::fma(value, value, sum)
    } else {
        S::add(value, sum)
    }
}
