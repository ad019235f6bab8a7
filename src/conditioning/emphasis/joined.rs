//! Methods that see both encoders of SDXL side by side.

use candle_core::Tensor;
use half::f16;

use super::{Emphasis, rows};
use crate::error::Result;
use crate::tokens::{CONTEXT, Chunks};

/// `joined` is `[rows, channels of all encoders]`, `chunks` the first encoder's; rows behind them
/// have no strengths.
pub(crate) fn apply_joined(emphasis: Emphasis, chunks: &Chunks, joined: Tensor) -> Result<Tensor> {
    let by_window: fn(&Tensor, &[f64]) -> Result<Tensor> = match emphasis {
        Emphasis::SdCpp => sd_cpp,
        Emphasis::LpwSdxl => lpw_sdxl,
        _ => return Ok(joined),
    };
    if !chunks.has_emphasis() {
        return Ok(joined);
    }
    let n_rows = joined.dim(0)?;
    let mut windows = Vec::with_capacity(chunks.len().get());
    for (chunk, start) in chunks.iter().zip((0..n_rows).step_by(CONTEXT)) {
        let n_here = CONTEXT.min(n_rows - start);
        let window = joined.narrow(0, start, n_here)?;
        windows.push(by_window(&window, &chunk.strengths()[..n_here])?);
    }
    // Windows of the empty prompt that make both sides equally long stay as they are.
    let own = n_rows.min(chunks.len().get() * CONTEXT);
    if own < n_rows {
        windows.push(joined.narrow(0, own, n_rows - own)?);
    }
    Ok(Tensor::cat(&windows, 0)?)
}

/// A1111's formula per window; the mean is left alone where it cannot be restored.
fn sd_cpp(window: &Tensor, strengths: &[f64]) -> Result<Tensor> {
    let after = window.broadcast_mul(&column(strengths, window)?)?;
    let (before, now) = (rows::mean(window)?, rows::mean(&after)?);
    if before.is_finite() && now.is_finite() && now != 0.0 {
        return Ok((&after * f64::from(before / now))?);
    }
    Ok(after)
}

/// Away from the window's last row, with strengths rounded to f16.
fn lpw_sdxl(window: &Tensor, strengths: &[f64]) -> Result<Tensor> {
    let rounded: Vec<f64> = strengths
        .iter()
        .map(|strength| f16::from_f64(*strength).to_f64())
        .collect();
    let last = window.narrow(0, window.dim(0)? - 1, 1)?;
    let moved = window.broadcast_sub(&last)?;
    let moved = moved.broadcast_mul(&column(&rounded, window)?)?;
    let moved = moved.broadcast_add(&last)?;
    let meant = rounded
        .iter()
        .map(|strength| u8::from(!rows::is_one(*strength)));
    let meant = Tensor::from_iter(meant, window.device())?.reshape((rounded.len(), 1))?;
    Ok(meant
        .broadcast_as(window.shape())?
        .where_cond(&moved, window)?)
}

/// `[rows, 1]`
fn column(strengths: &[f64], window: &Tensor) -> Result<Tensor> {
    let values = strengths.iter().map(|strength| rows::f32_of(*strength));
    Ok(Tensor::from_iter(values, window.device())?.reshape((strengths.len(), 1))?)
}
