//! What a product needs next, asked for while it works on something else: a matrix is read from memory
//! once in a run, and the units are as fast as the memory or faster.

use half::{bf16, f16};

use super::matrix::{Matrix, Values};
use crate::pages::LINE;

/// Rows of a matrix that are needed next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    start: *const u8,
    /// Bytes from a row to the next.
    row: usize,
    /// Bytes of a value.
    size: usize,
    n_rows: usize,
}

impl Ahead {
    /// Nothing is needed next.
    pub(super) const NOTHING: Ahead = Ahead {
        start: std::ptr::null(),
        row: 0,
        size: 0,
        n_rows: 0,
    };

    /// So many rows at most from `row` on, from a depth on; they may lie behind the matrix.
    pub(super) fn new(matrix: &Matrix<'_>, row: usize, n_rows: usize, depth: usize) -> Ahead {
        let (start, size): (*const u8, usize) = match matrix.values {
            Values::F32(all) => (all.as_ptr().cast(), size_of::<f32>()),
            Values::F16(all) => (all.as_ptr().cast(), size_of::<f16>()),
            Values::Bf16(all) => (all.as_ptr().cast(), size_of::<bf16>()),
        };
        Ahead {
            start: start.wrapping_add((row * matrix.depth + depth) * size),
            row: matrix.depth * size,
            size,
            n_rows: n_rows.min(matrix.rows.saturating_sub(row)),
        }
    }

    /// The same rows from so many values later on.
    pub(super) fn from(self, values: usize) -> Ahead {
        Ahead {
            start: self.start.wrapping_add(values * self.size),
            ..self
        }
    }

    /// So many values are one from now on.
    pub(super) fn by(self, terms: usize) -> Ahead {
        Ahead {
            size: self.size * terms,
            ..self
        }
    }

    /// One of several shares of so many rows.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn share(self, rows: usize, number: usize, shares: usize) -> Ahead {
        let share = rows.div_ceil(shares);
        let first = number * share;
        Ahead {
            start: self.start.wrapping_add(first * self.row),
            n_rows: share.min(self.n_rows.saturating_sub(first)),
            ..self
        }
    }

    /// Asks for some values of each row.
    #[inline(always)]
    pub(super) fn ask(&self, first: usize, count: usize) {
        for row in 0..self.n_rows {
            let place = self.start.wrapping_add(row * self.row + first * self.size);
            for line in (0..count * self.size).step_by(LINE) {
                ask(place.wrapping_add(line));
            }
        }
    }
}

/// Asks for a line. A hint: it reads nothing, wherever it points.
#[inline(always)]
fn ask(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{0}]",
            in(reg) place,
            options(nostack, readonly, preserves_flags)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
