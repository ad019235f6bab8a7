//! Diag-OFT (`LyCORIS`, `lycoris/modules/diag_oft.py`): rows are turned in blocks.
//!
//! For a block B of `[k, b, b]`: Q = B − Bᵀ, R = (I + Q)(I − Q)⁻¹, and the rows of the block become
//! Rᵀ · W. ΔW = s · (rescale ⊙ (Rᵀ · W) − W). With a constraint c = α · out above 0, Q is shortened to the
//! norm c (over all blocks together). `ComfyUI` takes α itself for c, puts the strength in twice and
//! leaves `rescale` out; where α is 0 and the strength 1, as usual, all agree.

use candle_core::{Device, Tensor};

use super::{Change, Factor, Parts, Reader, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::{Archive, Entry};
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct DiagOft {
    /// `[k, b, b]`
    blocks: Factor,
    /// `[out, 1]`
    rescale: Option<Factor>,
    constraint: f64,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let Some(entry) = parts.roles.remove(&Role::OftBlocks) else {
        return Ok(None);
    };
    let rows = parts.weight[0];
    match entry.shape[..] {
        [_, _, _, _] => return Err(unsupported("BOFT", &entry.file_name)),
        [k, b, c] if b == c && k.checked_mul(b) == Some(rows) && parts.weight.len() == 2 => {}
        _ => {
            let (shape, weight) = (&entry.shape, parts.weight);
            let message = format!("blocks of shape {shape:?} do not turn a matrix of {weight:?}");
            return Err(Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name));
        }
    }
    let rescale = parts.roles.remove(&Role::Rescale);
    let rescale = rescale.map(|entry| lengths(entry, rows));
    let constraint = parts.scale.alpha().unwrap_or(0.0) * rows as f64;
    Ok(Some(Box::new(DiagOft {
        blocks: Factor::of(entry, entry.shape.clone())?,
        rescale: rescale.transpose()?,
        constraint,
    })))
}

/// A length for each row: `[out, 1]` or `[out]`.
fn lengths(entry: &Entry, rows: usize) -> Result<Factor> {
    let shape = [rows, 1];
    Factor::exactly(entry, &shape).or_else(|_| Factor::exactly(entry, &shape[..1]))?;
    Factor::of(entry, shape.to_vec())
}

impl Change for DiagOft {
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let (rows, columns) = base.dims2()?;
        let turns = self.turns(reader.archive, reader.device)?;
        let (n_blocks, size, _) = turns.dims3()?;
        let blocks = base.reshape((n_blocks, size, columns))?;
        let mut turned = turns.matmul(&blocks)?.reshape((rows, columns))?;
        if let Some(rescale) = &self.rescale {
            turned = turned.broadcast_mul(&rescale.read(reader)?)?;
        }
        Ok(((turned - base)? * strength)?)
    }
}

impl DiagOft {
    /// Rᵀ of every block, `[k, b, b]`.
    fn turns(&self, archive: &Archive, device: &Device) -> Result<Tensor> {
        let size = self.blocks.columns();
        let values = self.blocks.values(archive)?;
        let mut skew: Vec<f64> = Vec::with_capacity(values.len());
        for block in values.chunks(size * size) {
            let cell = |row: usize, column: usize| f64::from(block[row * size + column]);
            let cells = (0..size * size).map(|at| (at / size, at % size));
            skew.extend(cells.map(|(row, column)| cell(row, column) - cell(column, row)));
        }
        let norm = skew.iter().map(|value| value * value).sum::<f64>().sqrt() + 1e-8;
        if self.constraint > 0.0 && norm > self.constraint {
            for value in &mut skew {
                *value *= self.constraint / norm;
            }
        }
        let turns = skew.chunks(size * size).flat_map(|block| turn(block, size));
        let shape = self.blocks.shape();
        Ok(Tensor::from_vec(
            turns.collect::<Vec<f32>>(),
            shape,
            device,
        )?)
    }
}

/// Rᵀ of one block, from Q. As Q is skew, Rᵀ = (I + Q)⁻¹(I − Q), and I + Q always has an inverse:
/// Gauss' elimination on both sides together.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the turn is applied in f32"
)]
fn turn(skew: &[f64], size: usize) -> Vec<f32> {
    let eye = |at: usize| if at / size == at % size { 1.0 } else { 0.0 };
    let mut left: Vec<f64> = skew.iter().enumerate().map(|(at, q)| eye(at) + q).collect();
    let mut right: Vec<f64> = skew.iter().enumerate().map(|(at, q)| eye(at) - q).collect();
    for column in 0..size {
        let pivot = pivot(&left, size, column);
        for at in 0..size {
            left.swap(column * size + at, pivot * size + at);
            right.swap(column * size + at, pivot * size + at);
        }
        for row in (0..size).filter(|row| *row != column) {
            let factor = left[row * size + column] / left[column * size + column];
            if factor != 0.0 {
                subtract(&mut left, size, (row, column), factor);
                subtract(&mut right, size, (row, column), factor);
            }
        }
    }
    let scaled = right.iter().enumerate().map(|(at, value)| {
        let row = at / size;
        (value / left[row * size + row]) as f32
    });
    scaled.collect()
}

/// The row, of those from the diagonal on, that has the largest value of a column.
fn pivot(matrix: &[f64], size: usize, column: usize) -> usize {
    let largest = |one: &usize, two: &usize| {
        let size_of = |row: usize| matrix[row * size + column].abs();
        size_of(*one).total_cmp(&size_of(*two))
    };
    (column..size).max_by(largest).unwrap_or(column)
}

/// `row -= factor · other`
fn subtract(matrix: &mut [f64], size: usize, (row, other): (usize, usize), factor: f64) {
    for at in 0..size {
        matrix[row * size + at] -= factor * matrix[other * size + at];
    }
}
