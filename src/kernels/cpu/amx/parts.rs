//! Panels in parts, register by register: what the unit takes.

use super::super::matrix::{Matrix, Values};
use super::super::panel::COLUMNS;
use super::super::shared::SharedMut;
use super::super::split;
use super::unit::{DEEP, SIDE, VALUES};

/// Registers across a panel.
pub(in super::super) const ACROSS: usize = COLUMNS / SIDE;

/// Most parts of a value.
const MOST: usize = 3;

/// `[pairs, depth / 32, parts, 2, 16, 32]`: what a product takes from one step to the next lies in a
/// row, whatever the number of parts. A pair is two registers beside each other, of one window or of
/// two; where their number is odd, the last has no other, and what lies in its place means nothing.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Parts<'a> {
    values: SharedMut<'a>,
    depth: usize,
    /// Parts of a value.
    each: usize,
}

/// Parts of a value in a product with such a matrix.
pub(super) fn parts_of(values: Values<'_>) -> usize {
    match values {
        Values::Bf16(_) => 1,
        Values::F16(_) => 2,
        Values::F32(_) => MOST,
    }
}

/// Pairs of registers across so many panels.
pub(super) const fn pairs(windows: usize) -> usize {
    (windows * ACROSS).div_ceil(2)
}

/// Values (bf16) of a step of depth.
pub(super) const fn step(parts: usize) -> usize {
    parts * 2 * VALUES
}

impl<'a> Parts<'a> {
    /// Values (f32) that the parts of so many panels take.
    pub(in super::super) const fn room(windows: usize, depth: usize) -> usize {
        pairs(windows) * depth.next_multiple_of(DEEP) * MOST * SIDE
    }

    /// Room for what a product with this matrix takes, for so many windows. What it holds at first
    /// means nothing.
    pub(in super::super) fn new(
        matrix: &Matrix<'_>,
        windows: usize,
        room: &'a mut [f32],
    ) -> Parts<'a> {
        assert!(room.len() >= Parts::room(windows, matrix.depth));
        Parts {
            values: SharedMut::new(room),
            depth: matrix.depth,
            each: parts_of(matrix.values),
        }
    }

    /// Parts of a value.
    pub(super) fn count(self) -> usize {
        self.each
    }

    /// Where the parts of a pair from this depth on lie.
    pub(super) fn at(self, pair: usize, depth: usize) -> *mut u16 {
        let number = (pair * self.depth + depth) / DEEP;
        // In values of f32, two of bf16 each.
        let step = step(self.each) / 2;
        self.values.at(number * step, step).cast()
    }

    /// Splits values of this register: some rows from this depth on, `stride` values apart.
    ///
    /// # Safety
    ///
    /// The unit is there, `from` holds the rows, whose number and whose place in a step of depth are
    /// even and which do not leave that step; no other thread has this register's step.
    pub(in super::super) unsafe fn put(
        self,
        (register, depth): (usize, usize),
        from: *const f32,
        (rows, stride): (usize, usize),
    ) {
        let to = self.at(register / 2, depth);
        let to = to.add(register % 2 * VALUES + depth % DEEP / 2 * DEEP);
        match self.each {
            1 => split::columns::<1>(from, (rows, stride), (to, DEEP)),
            2 => split::columns::<2>(from, (rows, stride), (to, DEEP)),
            _ => split::columns::<MOST>(from, (rows, stride), (to, DEEP)),
        }
    }
}
