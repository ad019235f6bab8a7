//! Rows of a matrix as the unit takes them: where they lie if they are bf16, else in parts.

use half::bf16;

use super::super::matrix::{Matrix, Values};
use super::super::split;
use super::unit::{DEEP, Pair, SIDE, VALUES};

/// Depth times parts that are taken at once: panels and matrix of it stay in the second cache.
pub(super) const DEPTH: usize = 3072;

/// Rows of two registers.
pub(super) const ROWS: usize = 2 * SIDE;

/// A part of some rows' depth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<const PARTS: usize> {
    start: *const u16,
    /// Values from a register's row to the next, from a register to the one below, from a step of
    /// depth to the next, and from a pair of registers to the next.
    row: usize,
    below: usize,
    step: usize,
    pair: usize,
}

impl<const PARTS: usize> Rows<PARTS> {
    /// `count` rows from `first` on, `deep` values of each from `from` on. `room` takes the parts.
    ///
    /// # Safety
    ///
    /// The unit is there, and `room` has place for [`DEPTH`] values of each row.
    pub(super) unsafe fn new(
        matrix: &Matrix<'_>,
        (first, count): (usize, usize),
        (from, deep): (usize, usize),
        room: *mut u16,
    ) -> Rows<PARTS> {
        if let Values::Bf16(all) = matrix.values {
            let rows = &all[first * matrix.depth..][..count * matrix.depth];
            return Rows::in_place(&rows[from..], matrix.depth);
        }
        let rows = Rows::in_room(room, deep);
        let start = first * matrix.depth + from;
        for step in 0..deep / DEEP {
            let place = room.add(step * rows.step);
            rows.pack(matrix, (start + step * DEEP, count), place);
        }
        rows
    }

    /// As a matrix of this depth has them.
    fn in_place(rows: &[bf16], depth: usize) -> Rows<PARTS> {
        Rows {
            start: rows.as_ptr().cast(),
            row: depth,
            below: SIDE * depth,
            step: DEEP,
            pair: ROWS * depth,
        }
    }

    /// As [`pack`](Self::pack) puts them down.
    fn in_room(room: *const u16, deep: usize) -> Rows<PARTS> {
        Rows {
            start: room,
            row: DEEP,
            below: VALUES,
            step: PARTS * 2 * VALUES,
            pair: deep / DEEP * PARTS * 2 * VALUES,
        }
    }

    /// A step of depth of all rows in parts: `[count / 32, …, parts, 2, 16, 32]`, where the dots stand
    /// for all steps. Step by step what is written lies together.
    unsafe fn pack(&self, matrix: &Matrix<'_>, (start, count): (usize, usize), room: *mut u16) {
        for row in 0..count {
            let place = row / SIDE % 2 * self.below + row % SIDE * self.row;
            let to = room.add(row / ROWS * self.pair + place);
            let range = start + row * matrix.depth..start + row * matrix.depth + DEEP;
            match matrix.values {
                Values::F32(all) => split::row::<PARTS>(&all[range], to),
                Values::F16(all) => split::half_row::<PARTS>(&all[range], to),
                Values::Bf16(_) => {}
            }
        }
    }

    /// Two registers of rows: those from `row` on, this part of this step.
    #[inline(always)]
    pub(super) unsafe fn at(&self, row: usize, step: usize, part: usize) -> Pair {
        let start = self.start.add(row / ROWS * self.pair + step * self.step);
        let first = start.add(part * 2 * VALUES);
        Pair {
            first,
            second: first.add(self.below),
            stride: self.row * size_of::<u16>(),
        }
    }
}
