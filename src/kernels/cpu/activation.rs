//! The MLPs' non-linearities.

use super::simd::{Simd, erf, sigmoid};
use crate::kernels::Activation;
use crate::kernels::reference::QUICK_GELU_SLOPE;

/// `√(2/π)` and the cubic term of the tanh approximation (Hendrycks and Gimpel, 2016).
const TANH: [f32; 2] = [0.797_884_6, 0.044_715];

/// Replaces `n` values, a multiple of sixteen, by the function of them.
///
/// # Safety
///
/// `values` holds so many.
#[inline(always)]
pub(super) unsafe fn activate<S: Simd>(values: *mut f32, n: usize, activation: Activation) {
    match activation {
        Activation::QuickGelu => each::<S, 0>(values, n),
        Activation::GeluErf => each::<S, 1>(values, n),
        Activation::GeluTanh => each::<S, 2>(values, n),
    }
}

#[inline(always)]
unsafe fn each<S: Simd, const KIND: u8>(values: *mut f32, n: usize) {
    for place in (0..n).step_by(S::LANES) {
        let x = S::load(values.add(place));
        let share = match KIND {
            0 => sigmoid::<S>(S::mul(x, S::splat(QUICK_GELU_SLOPE))),
            1 => {
                let z = S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2));
                S::mul(S::add(S::splat(1.0), erf::<S>(z)), S::splat(0.5))
            }
            _ => {
                // (1 + tanh(u)) / 2 = sigmoid(2u)
                let cube = S::mul(S::mul(x, x), x);
                let inner = S::fma(cube, S::splat(TANH[1]), x);
                sigmoid::<S>(S::mul(inner, S::splat(2.0 * TANH[0])))
            }
        };
        S::store(values.add(place), S::mul(x, share));
    }
}
