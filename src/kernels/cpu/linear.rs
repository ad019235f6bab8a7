//! A product with every panel of a group, by the vector unit's multiply-add.

use std::ops::Range;

use super::ahead::Ahead;
use super::isa::Isa;
use super::matrix::{Matrix, Values};
use super::panel::COLUMNS;
use super::panels::Panels;
use super::team::Team;
use super::tile::Factors;
use crate::kernels::Activation;

/// Tiles of rows in one task.
const TILES: usize = 8;

/// Columns of the matrix that are widened at once.
const DEPTH: usize = 768;

/// Columns of the matrix between two visits to the sums: so much of a panel stays in the nearest
/// cache while all rows of a task pass by.
const NEAR: usize = 96;

/// Values of a task's room.
pub(super) const ROOM: usize = TILES * 8 * DEPTH;

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
    let chunk = TILES * isa.tiles.len();
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
        for from in (0..depth).step_by(DEPTH) {
            let deep = DEPTH.min(depth - from);
            let rows = self.rows(from, deep, room);
            for window in self.windows.clone() {
                self.multiply(window, from, deep, rows);
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

    /// A part of the depth of its rows in f32: where they lie, or in `room`.
    fn rows(&self, from: usize, deep: usize, room: &mut [f32]) -> Rows {
        let Matrix { values, depth, .. } = self.linear.matrix;
        if let Values::F32(all) = values {
            let rows = &all[self.first * depth..][..self.count * depth];
            let start = rows[from..].as_ptr();
            return Rows { start, step: depth };
        }
        for (row, wide) in room.chunks_exact_mut(deep).take(self.count).enumerate() {
            self.linear.matrix.widen(self.first + row, from, wide);
        }
        let start = room[..self.count * deep].as_ptr();
        Rows { start, step: deep }
    }

    fn multiply(&self, window: usize, from: usize, deep: usize, wide: Rows) {
        let panel = self.x.rows(window, from, deep);
        let (out, most) = (self.out(window), self.isa.tiles.len());
        for near in (0..deep).step_by(NEAR) {
            let count = NEAR.min(deep - near);
            for row in (0..self.count).step_by(most) {
                let rows = most.min(self.count - row);
                if window == self.windows.start {
                    // These rows of the next task.
                    let next = self.first + self.count + row;
                    let ahead = Ahead::new(&self.linear.matrix, next, rows, from);
                    ahead.ask(near, count);
                }
                let factors = Factors {
                    w: wide.start.wrapping_add(row * wide.step + near),
                    steps: (wide.step, 1),
                    x: panel.wrapping_add(near * COLUMNS),
                    depth: count,
                };
                // SAFETY: the ranges were checked above, the rows are this task's, the unit is there.
                unsafe { self.isa.tiles[rows - 1](factors, out.wrapping_add(row * COLUMNS)) }
            }
        }
    }
}

/// Rows in f32, `step` values apart.
#[derive(Clone, Copy)]
struct Rows {
    start: *const f32,
    step: usize,
}
