//! AVX-512's products of bf16: two values of the depth at once, so twice as many of them as f32's.

use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
use std::mem::transmute;

use super::amx;
use super::avx512::Avx512;
use super::matrix::{Matrix, Values};
use super::panel::COLUMNS;
use super::shared::SharedMut;
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
        amx::columns::<1>(from, (count, COLUMNS), (to.cast(), TWO * COLUMNS));
    }
}
