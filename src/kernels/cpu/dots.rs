//! AVX-512's products of bf16: two values of the depth at once, so twice as many of them as f32's.

use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
use std::mem::transmute;

use super::amx;
use super::avx512::Avx512;
use super::matrix::{Matrix, Values};
use super::panel::COLUMNS;
use super::shared::SharedMut;
use super::split;
use super::tile::Multiply;

/// Values of the depth in a word.
pub(super) const TWO: usize = 2;

/// A word: two neighbours of a row of a bf16 matrix, as they lie there. Products are added one after
/// the other, each rounded to f32.
pub(super) struct Word;

impl Multiply<Avx512> for Word {
    #[inline(always)]
    unsafe fn add(x: __m512, w: __m512, sum: __m512) -> __m512 {
        let words = |bits| transmute::<__m512, __m512bh>(bits);
        _mm512_dpbf16_ps(sum, words(x), words(w))
    }
}

/// Panels rounded to bf16, two rows of one beside each other: `[windows, depth / 2, 80, 2]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    values: SharedMut<'a>,
    depth: usize,
}

impl<'a> Words<'a> {
    /// True if a product with such a matrix takes words.
    pub(super) fn take(matrix: &Matrix<'_>) -> bool {
        matches!(matrix.values, Values::Bf16(_)) && amx::whole(matrix)
    }

    /// Values (f32) that so many panels take.
    pub(super) const fn room(windows: usize, depth: usize) -> usize {
        windows * depth / TWO * COLUMNS
    }

    /// Room for so many windows. What it holds at first means nothing.
    pub(super) fn new(depth: usize, windows: usize, room: &'a mut [f32]) -> Words<'a> {
        assert!(room.len() >= Words::room(windows, depth) && depth.is_multiple_of(TWO));
        Words {
            values: SharedMut::new(room),
            depth,
        }
    }

    /// Rows of words of a window.
    pub(super) fn rows(self, window: usize, first: usize, count: usize) -> *mut f32 {
        let row = window * self.depth / TWO + first;
        self.values.at(row * COLUMNS, count * COLUMNS)
    }

    /// Rounds sixteen columns from `column` on of some rows of a panel, which are given.
    ///
    /// # Safety
    ///
    /// The instructions are there, `from` holds the rows; first and count are even, and no other thread
    /// has these rows and columns.
    pub(super) unsafe fn put(
        self,
        (window, column): (usize, usize),
        (first, count): (usize, usize),
        from: *const f32,
    ) {
        let to = self.rows(window, first / TWO, count / TWO).add(column);
        split::columns::<1>(from, (count, COLUMNS), (to.cast(), TWO * COLUMNS));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use half::bf16;

    use super::super::isa;
    use super::*;

    const DEPTH: usize = 64;

    /// Values of both signs and all sizes.
    fn values() -> Vec<f32> {
        let value = |number: usize| (number as f32 * 0.37 - 1000.0).powi(3) * 1.3e-7;
        (0..2 * DEPTH * COLUMNS).map(value).collect()
    }

    #[test]
    fn words_are_neighbours_in_depth_rounded_to_bf16() {
        if isa::dots().is_none() {
            let why = "NOT RUN: it takes a CPU with AVX-512 and its bf16 instructions";
            return writeln!(std::io::stderr(), "{why}").unwrap();
        }
        let floats = values();
        let mut room = vec![0.0; Words::room(2, DEPTH)];
        let words = Words::new(DEPTH, 2, &mut room);
        for (window, panel) in floats.chunks_exact(DEPTH * COLUMNS).enumerate() {
            for column in (0..COLUMNS).step_by(16) {
                // In two pieces, as two tasks would.
                for (first, count) in [(0, 10), (10, DEPTH - 10)] {
                    let from = panel[first * COLUMNS + column..].as_ptr();
                    // SAFETY: the instructions are there, and the panel holds the rows.
                    unsafe { words.put((window, column), (first, count), from) }
                }
            }
        }
        for (place, word) in room.iter().enumerate() {
            let (row, column) = (place / COLUMNS * TWO, place % COLUMNS);
            let value = |row: usize| bf16::from_f32(floats[row * COLUMNS + column]).to_bits();
            let both = u32::from(value(row)) | u32::from(value(row + 1)) << 16;
            assert_eq!(word.to_bits(), both, "{row} {column}");
        }
    }

    #[test]
    fn only_whole_bf16_matrices_take_words() {
        let values = vec![bf16::ONE; 64 * 64];
        let floats = vec![1.0; 64 * 64];
        let takes = |values, rows, depth| {
            Words::take(&Matrix {
                values,
                rows,
                depth,
            })
        };
        assert!(takes(Values::Bf16(&values), 64, 64));
        assert!(!takes(Values::Bf16(&values[..64 * 30]), 64, 30));
        assert!(!takes(Values::Bf16(&values[..30 * 64]), 30, 64));
        assert!(!takes(Values::F32(&floats), 64, 64));
    }
}
