//! What the next product needs, asked for while this one is made: a matrix is read from memory once
//! in a run, and the unit is faster than the memory.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::super::matrix::{Matrix, Values};
use super::rows::ROWS;
use super::unit::DEEP;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows of a matrix that are needed next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    start: *const u8,
    /// Bytes of a row.
    row: usize,
    /// Bytes of a step of depth.
    step: usize,
    n_rows: usize,
}

impl Ahead {
    /// Nothing is needed next.
    pub(super) const NOTHING: Ahead = Ahead {
        start: std::ptr::null(),
        row: 0,
        step: 0,
        n_rows: 0,
    };

    /// The rows from `row` on, from a depth on; they may lie behind the matrix.
    pub(super) fn new(matrix: &Matrix<'_>, row: usize, depth: usize) -> Ahead {
        let (start, size): (*const u8, usize) = match matrix.values {
            Values::F32(all) => (all.as_ptr().cast(), 4),
            Values::F16(all) => (all.as_ptr().cast(), 2),
            Values::Bf16(all) => (all.as_ptr().cast(), 2),
        };
        Ahead {
            start: start.wrapping_add((row * matrix.depth + depth) * size),
            row: matrix.depth * size,
            step: DEEP * size,
            n_rows: ROWS.min(matrix.rows.saturating_sub(row)),
        }
    }

    /// One of several equal shares of the rows.
    pub(super) fn share(self, number: usize, shares: usize) -> Ahead {
        let share = ROWS.div_ceil(shares);
        let first = number * share;
        Ahead {
            start: self.start.wrapping_add(first * self.row),
            n_rows: share.min(self.n_rows.saturating_sub(first)),
            ..self
        }
    }

    /// Asks for a step of depth.
    #[inline(always)]
    pub(super) fn ask(&self, step: usize) {
        for row in 0..self.n_rows {
            let place = self.start.wrapping_add(row * self.row + step * self.step);
            for line in (0..self.step).step_by(LINE) {
                // SAFETY: a hint; it reads nothing, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(line).cast()) }
            }
        }
    }
}
