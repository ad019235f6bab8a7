//! Comparing tensors the same way everywhere.

use sd_conditioner::candle_core::{DType, Tensor};

/// How far two tensors are apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    /// `max |a - b|`
    pub max_abs: f64,
    /// `max |a - b| / max |b|`
    pub relative: f64,
    /// The smallest cosine over rows (1 where both rows are zero).
    pub cosine: f64,
    /// Where the largest difference is, row-major.
    pub worst: usize,
}

/// Measures `a` against the reference `b`.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> Distance {
    assert_eq!(a.dims(), b.dims(), "shapes differ");
    let width = b.dims().last().copied().unwrap_or(1);
    let (a, b) = (values(a), values(b));
    let (worst, max_abs) = a
        .iter()
        .zip(&b)
        .map(|(a, b)| {
            if a.is_finite() && b.is_finite() {
                (a - b).abs()
            } else {
                f64::INFINITY
            }
        })
        .enumerate()
        .fold(
            (0, 0.0),
            |best, next| if next.1 > best.1 { next } else { best },
        );
    let scale = b
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let relative = if max_abs == 0.0 { 0.0 } else { max_abs / scale };
    let rows = a.chunks(width).zip(b.chunks(width));
    let cosine = rows.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
    Distance {
        max_abs,
        relative,
        cosine,
        worst,
    }
}

/// Panics with the numbers when `a` is farther than `bar` (relative to the largest value of `b`).
pub(crate) fn assert_close(what: &str, a: &Tensor, b: &Tensor, bar: f64) {
    let found = distance(a, b);
    let worst = found.worst;
    assert!(
        found.relative <= bar,
        "{what}: {found:?}, allowed {bar:e}; worst at {worst}"
    );
}

/// The bits of an f32 tensor, to compare exactly.
pub(crate) fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// All values as f64.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    flat.to_vec1().unwrap()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 {
        if a == b { 1.0 } else { 0.0 }
    } else {
        dot(a, b) / norms
    }
}
