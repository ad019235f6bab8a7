//! A product with every panel of a group, by the vector unit's multiply-add.

use std::ops::Range;

use super::ahead::Ahead;
use super::isa::{Isa, Order};
use super::matrix::{Matrix, Values};
use super::panel::COLUMNS;
use super::panels::Panels;
use super::team::Team;
use super::tile::Factors;
use crate::kernels::Activation;

/// Tiles of rows in one task: many, where that leaves work for every thread. Then the panels come
/// from afar less often; still more rows would no longer fit a core's own cache beside them.
const TILES: [usize; 2] = [8, 16];

/// Columns of the matrix between two visits to the sums: parts that are summed by themselves are more
/// exact than one long sum.
const NEAR: usize = 384;

/// Tiles from one to the rows that are asked for.
const AHEAD: usize = 2;

/// Values of a task's room: its part of the matrix in f32.
pub(super) const ROOM: usize = TILES[1] * 8 * Order::DEEPEST;

/// What becomes of a product.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Store,
    Activate(Activation),
    /// It is added to what is there.
    Add,
}

/// A matrix and its bias, and what becomes of the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) bias: &'a [f32],
    pub(super) then: Then,
}

impl Linear<'_> {
    /// What the product is added to, for the rows from `first` on: the bias, alone or with what is
    /// there.
    pub(super) fn begin(&self, first: usize, rows: &mut [f32]) {
        let bias = &self.bias[first..];
        for (row, bias) in rows.chunks_exact_mut(COLUMNS).zip(bias) {
            match self.then {
                Then::Add => row.iter_mut().for_each(|value| *value += bias),
                Then::Store | Then::Activate(_) => row.fill(*bias),
            }
        }
    }
}

/// `matrix · panel + bias` for each panel: `[windows, depth, 80]` → `[windows, rows, 80]`.
pub(super) fn linear(
    isa: &Isa,
    team: &Team<'_>,
    linear: Linear<'_>,
    x: Panels<'_>,
    out: Panels<'_>,
) {
    let Matrix { rows, .. } = linear.matrix;
    assert!(out.features() == rows && linear.bias.len() == rows);
    let most = isa.tiles.len();
    let tiles = rows.div_ceil(team.wanted() * most);
    let chunk = most * tiles.clamp(TILES[0], TILES[1]);
    team.share_product((rows, chunk), out.windows(), |rows, windows, room| {
        let part = Part {
            isa,
            linear,
            x,
            out,
            first: rows.start,
            count: rows.len(),
            windows,
        };
        part.run(room);
    });
}

/// Some rows of a product, for some windows.
struct Part<'a> {
    isa: &'a Isa,
    linear: Linear<'a>,
    x: Panels<'a>,
    out: Panels<'a>,
    first: usize,
    count: usize,
    windows: Range<usize>,
}

impl Part<'_> {
    fn run(&self, room: &mut [f32]) {
        let depth = self.linear.matrix.depth;
        for window in self.windows.clone() {
            // SAFETY: no other task touches these rows.
            let rows =
                unsafe { std::slice::from_raw_parts_mut(self.out(window), self.count * COLUMNS) };
            self.linear.begin(self.first, rows);
        }
        let order = self.isa.order;
        for from in (0..depth).step_by(order.deep) {
            let deep = from..depth.min(from + order.deep);
            for first in self.windows.clone().step_by(order.together) {
                let some = first..self.windows.end.min(first + order.together);
                self.multiply(some, &deep, room);
            }
        }
        if let Then::Activate(activation) = self.linear.then {
            for window in self.windows.clone() {
                let values = self.out(window);
                // SAFETY: `values` are this task's, and the unit is there.
                unsafe { (self.isa.activate)(values, self.count * COLUMNS, activation) }
            }
        }
    }

    /// Where its rows of a window's result are.
    fn out(&self, window: usize) -> *mut f32 {
        self.out.rows(window, self.first, self.count)
    }

    /// Some windows' product with a part of the depth.
    fn multiply(&self, windows: Range<usize>, deep: &Range<usize>, room: &mut [f32]) {
        let most = self.isa.tiles.len();
        let first = windows.start == self.windows.start;
        for row in (0..self.count).step_by(most) {
            let rows = row..self.count.min(row + most);
            if first {
                self.widen(rows.clone(), deep, room);
            }
            for window in windows.clone() {
                let next = if window == self.windows.start {
                    self.next(&rows, deep)
                } else {
                    Ahead::NOTHING
                };
                self.pass(window, &rows, deep, (room, next));
            }
        }
    }

    /// Puts a part of some rows into `room` in f32, unless they are.
    fn widen(&self, rows: Range<usize>, deep: &Range<usize>, room: &mut [f32]) {
        let matrix = self.linear.matrix;
        if matches!(matrix.values, Values::F32(_)) {
            return;
        }
        let places = room.chunks_exact_mut(deep.len()).skip(rows.start);
        for (row, wide) in rows.zip(places) {
            let part = matrix.part(self.first + row, deep.start, deep.len());
            // SAFETY: the unit is there.
            unsafe { (self.isa.widen)(part, wide) }
        }
    }

    /// A tile's rows pass a window.
    fn pass(
        &self,
        window: usize,
        rows: &Range<usize>,
        deep: &Range<usize>,
        (room, next): (&[f32], Ahead),
    ) {
        let (wide, step) = self.wide(deep, room);
        let wide = &wide[rows.start * step..];
        let out = self.out(window).wrapping_add(rows.start * COLUMNS);
        for near in (0..deep.len()).step_by(NEAR) {
            let depth = NEAR.min(deep.len() - near);
            let factors = Factors {
                w: wide[near..].as_ptr(),
                steps: (step, 1),
                x: self.x.rows(window, deep.start + near, depth),
                depth,
                ahead: next.from(near),
            };
            // SAFETY: the ranges were checked above, the rows are this task's, the unit is there.
            unsafe { self.isa.tiles[rows.len() - 1](factors, out) }
        }
    }

    /// Its rows from a depth on in f32, and from one to the next: where they lie, or in the room.
    fn wide<'a>(&'a self, deep: &Range<usize>, room: &'a [f32]) -> (&'a [f32], usize) {
        let Matrix { values, depth, .. } = self.linear.matrix;
        match values {
            Values::F32(all) => {
                let rows = &all[self.first * depth..][..self.count * depth];
                (&rows[deep.start..], depth)
            }
            Values::F16(_) | Values::Bf16(_) => (&room[..self.count * deep.len()], deep.len()),
        }
    }

    /// What is needed soon after a tile's rows: those behind them, or behind the task's last rows its
    /// first ones at the next depth, or the next task's.
    fn next(&self, tile: &Range<usize>, deep: &Range<usize>) -> Ahead {
        let matrix = &self.linear.matrix;
        let (mut row, mut from) = (tile.start + AHEAD * self.isa.tiles.len(), deep.start);
        if row >= self.count && deep.end < matrix.depth {
            (row, from) = (row - self.count, deep.end);
        }
        Ahead::new(matrix, self.first + row, tile.len(), from)
    }
}
