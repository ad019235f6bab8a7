//! Conditionings → how near each is to each other.

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::{Conditioning, Result};
use serde::Serialize;

/// A square of cosines, rows and columns in the order of the profiles; `None` where one side is
/// zeros.
pub(super) type Matrix = Vec<Vec<Option<f64>>>;

/// Cosines between conditionings.
#[derive(Debug, Serialize)]
pub(super) struct Cosines {
    /// Over the rows that both have: profiles cut one prompt into different numbers of windows.
    pub(super) context: Matrix,
    /// `None` for families whose U-Net takes no pooled vector.
    pub(super) pooled: Option<Matrix>,
}

impl Cosines {
    /// Compares each with each.
    pub(super) fn of(all: &[Conditioning]) -> Result<Cosines> {
        let contexts = all.iter().map(|one| numbers(one.context()));
        let contexts = contexts.collect::<Result<Vec<_>>>()?;
        // ComfyUI hands on a pooled vector for the others too, and their U-Nets do not take it.
        let taken = all.iter().all(|one| one.time_ids().is_some());
        let pooled = all.iter().filter_map(Conditioning::pooled).map(numbers);
        let pooled = pooled.collect::<Result<Vec<_>>>()?;
        Ok(Cosines {
            context: matrix(&contexts),
            pooled: (taken && pooled.len() == all.len()).then(|| matrix(&pooled)),
        })
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(tensor.flatten_all()?.to_vec1()?)
}

fn matrix(all: &[Vec<f32>]) -> Matrix {
    let row = |one: &Vec<f32>| all.iter().map(|other| cosine(one, other)).collect();
    all.iter().map(row).collect()
}

/// Over as many numbers as both have: rows are contiguous, so these are whole rows.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let (mut product, mut squares) = (0.0, [0.0_f64; 2]);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        product += x * y;
        squares[0] += x * x;
        squares[1] += y * y;
    }
    let lengths = squares[0].sqrt() * squares[1].sqrt();
    (lengths > 0.0).then(|| product / lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[3.0, 4.0], &[-3.0, -4.0]), Some(-1.0));
        assert_eq!(cosine(&[1.0, 0.0], &[1.0, 0.0, 9.0, 9.0]), Some(1.0));
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), None);
    }
}
