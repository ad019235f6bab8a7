//! Arithmetic on rows, in f32, in the order of operations of the reference programs.

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::tokens::{CONTEXT, Chunk, Chunks};

/// The strength of every row of all windows.
pub(super) fn strengths(chunks: &Chunks) -> Vec<f64> {
    strengths_of(chunks.iter())
}

pub(super) fn strengths_of<'a>(windows: impl Iterator<Item = &'a Chunk>) -> Vec<f64> {
    windows.flat_map(|chunk| *chunk.strengths()).collect()
}

/// `e + (z - e) · w` in rows whose strength is not exactly 1; the others stay bit for bit. `empty`
/// is one window, `hidden` `[windows, 77, width]`.
pub(super) fn away_from(empty: &Tensor, hidden: &Tensor, strengths: &[f64]) -> Result<Tensor> {
    if strengths.iter().all(|strength| is_one(*strength)) {
        return Ok(hidden.clone());
    }
    let weights = column(strengths, hidden)?;
    let moved = hidden.broadcast_sub(empty)?.broadcast_mul(&weights)?;
    let moved = moved.broadcast_add(empty)?;
    let meant = strengths
        .iter()
        .map(|strength| u8::from(!is_one(*strength)));
    let meant = Tensor::from_iter(meant, hidden.device())?.reshape(weights.shape())?;
    Ok(meant
        .broadcast_as(hidden.shape())?
        .where_cond(&moved, hidden)?)
}

/// `z · w`
pub(super) fn scaled(hidden: &Tensor, strengths: &[f64]) -> Result<Tensor> {
    if strengths.iter().all(|strength| is_one(*strength)) {
        return Ok(hidden.clone());
    }
    Ok(hidden.broadcast_mul(&column(strengths, hidden)?)?)
}

/// `after` times what brings its mean back to `before`'s. A mean near zero explodes, as it does in
/// the reference programs.
pub(super) fn mean_restored(before: &Tensor, after: &Tensor) -> Result<Tensor> {
    let ratio = mean(before)? / mean(after)?;
    Ok((after * f64::from(ratio))?)
}

/// The same for texts that are so many times in one call, each `[windows, 77, width]`: a single ratio.
pub(super) fn means_restored(before: &Tensor, after: &Tensor, times: &[usize]) -> Result<Tensor> {
    if times.iter().all(|times| *times == 1) {
        return mean_restored(before, after);
    }
    let ratio = mean_of_times(before, times)? / mean_of_times(after, times)?;
    Ok((after * f64::from(ratio))?)
}

/// The mean of windows that count as often as is said.
fn mean_of_times(windows: &Tensor, times: &[usize]) -> Result<f32> {
    let means = windows
        .to_dtype(DType::F64)?
        .mean((1, 2))?
        .to_vec1::<f64>()?;
    let sum: f64 = means
        .iter()
        .zip(times)
        .map(|(mean, n)| mean * *n as f64)
        .sum();
    Ok(f32_of(sum / times.iter().sum::<usize>() as f64))
}

/// The mean of all values, rounded to f32.
pub(super) fn mean(tensor: &Tensor) -> Result<f32> {
    let mean = tensor
        .to_dtype(DType::F64)?
        .mean_all()?
        .to_scalar::<f64>()?;
    Ok(f32_of(mean))
}

/// Strengths as `[windows, 77, 1]` beside `hidden`.
pub(super) fn column(strengths: &[f64], hidden: &Tensor) -> Result<Tensor> {
    let values = strengths.iter().map(|strength| f32_of(*strength));
    let shape = (strengths.len() / CONTEXT, CONTEXT, 1);
    Ok(Tensor::from_iter(values, hidden.device())?.reshape(shape)?)
}

#[expect(clippy::float_cmp, reason = "neutral is exact")]
pub(super) fn is_one(strength: f64) -> bool {
    strength == 1.0
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference programs round strengths to f32 here"
)]
pub(super) fn f32_of(value: f64) -> f32 {
    value as f32
}
