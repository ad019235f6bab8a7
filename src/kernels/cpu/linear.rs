//! A product with every panel of a group, by the vector unit's multiply-add.

use std::ops::Range;

use super::ahead::Ahead;
use super::groups::GROUP;
use super::isa::{Isa, Order};
use super::matrix::{Matrix, Values};
use super::panel::COLUMNS;
use super::panels::Panels;
use super::team::Lead;
use super::tile::{Before, Factors};
use crate::kernels::Activation;

/// Tiles of rows in one task: many, where that leaves work for every thread. Then the panels come
/// from afar less often; still more rows would no longer fit a core's own cache beside them.
const TILES: [usize; 2] = [8, 16];

/// Columns of the matrix between two visits to the sums: parts that are summed by themselves are more
/// exact than one long sum.
const NEAR: usize = 384;

/// Tiles from one to the rows that are asked for.
const AHEAD: usize = 2;

/// Most rows of a task.
const ROWS: usize = TILES[1] * 8;

/// Values of a task's room: its part of the matrix in f32, and of what it makes where that is wanted in
/// another form alone.
pub(super) const ROOM: usize = ROWS * Order::DEEPEST + GROUP * ROWS * COLUMNS;

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

/// `matrix · panel + bias` for each panel: `[windows, depth, 80]` → `[windows, rows, 80]`.
pub(super) fn linear(
    isa: &Isa,
    lead: Lead<'_>,
    linear: Linear<'_>,
    x: Panels<'_>,
    out: Panels<'_>,
) {
    let Matrix { rows, .. } = linear.matrix;
    assert!(out.features() == rows && linear.bias.len() == rows && out.windows() <= GROUP);
    let chunk = chunk(isa, lead, rows);
    lead.share_product((rows, chunk), out.windows(), |rows, windows, room| {
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

/// Rows of a task: those with which the threads have the most equal shares. Even, as other forms want it.
fn chunk(isa: &Isa, lead: Lead<'_>, rows: usize) -> usize {
    let most = isa.tiles.len();
    let chunks = (TILES[0]..=TILES[1])
        .map(|tiles| tiles * most)
        .filter(|chunk| chunk.is_multiple_of(2));
    let longest = |chunk: &usize| rows.div_ceil(*chunk).div_ceil(lead.threads) * chunk;
    chunks.min_by_key(longest).unwrap_or(ROWS)
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

/// A thread's room, divided.
struct Room<'a> {
    /// Rows of a part of the matrix in f32.
    wide: &'a mut [f32],
    /// Rows of the result, for each window, where they are wanted in another form alone.
    apart: &'a mut [f32],
}

impl Part<'_> {
    fn run(&self, room: &mut [f32]) {
        let (wide, apart) = room.split_at_mut(ROWS * Order::DEEPEST);
        let room = &mut Room { wide, apart };
        let depth = self.linear.matrix.depth;
        let (order, deepest) = (self.isa.order, self.isa.order.deep * self.isa.terms);
        for from in (0..depth).step_by(deepest) {
            let deep = from..depth.min(from + deepest);
            for first in self.windows.clone().step_by(order.together) {
                let some = first..self.windows.end.min(first + order.together);
                self.multiply(some, &deep, room);
            }
        }
        self.windows
            .clone()
            .for_each(|window| self.finish(window, room));
    }

    /// What becomes of a window's sums.
    fn finish(&self, window: usize, room: &mut Room<'_>) {
        let values = self.out(window, room);
        if let Then::Activate(activation) = self.linear.then {
            // SAFETY: `values` are this task's, and the unit is there.
            unsafe { (self.isa.activate)(values, self.count * COLUMNS, activation) }
        }
        let rows = self.first..self.first + self.count;
        let columns = (0..COLUMNS).step_by(16);
        // SAFETY: as above; the values were just put there.
        unsafe { self.out.put(window, rows, columns, values) }
    }

    /// Where its rows of a window's result are.
    fn out(&self, window: usize, room: &mut Room<'_>) -> *mut f32 {
        if self.out.has_values() {
            return self.out.rows(window, self.first, self.count);
        }
        let values = self.count * COLUMNS;
        room.apart[(window - self.windows.start) * values..][..values].as_mut_ptr()
    }

    /// Some windows' product with a part of the depth.
    fn multiply(&self, windows: Range<usize>, deep: &Range<usize>, room: &mut Room<'_>) {
        let most = self.isa.tiles.len();
        let first = windows.start == self.windows.start;
        for row in (0..self.count).step_by(most) {
            let rows = row..self.count.min(row + most);
            if first {
                self.widen(rows.clone(), deep, room.wide);
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

    /// True if the tiles take the matrix as it lies.
    fn in_place(&self) -> bool {
        match self.linear.matrix.values {
            Values::F32(_) => true,
            Values::F16(_) => false,
            Values::Bf16(_) => self.isa.terms > 1,
        }
    }

    /// Puts a part of some rows into the room in f32, if the tiles want that.
    fn widen(&self, rows: Range<usize>, deep: &Range<usize>, room: &mut [f32]) {
        if self.in_place() {
            return;
        }
        let places = room.chunks_exact_mut(deep.len()).skip(rows.start);
        for (row, wide) in rows.zip(places) {
            let part = (self.linear.matrix).part(self.first + row, deep.start, deep.len());
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
        (room, next): (&mut Room<'_>, Ahead),
    ) {
        let terms = self.isa.terms;
        let out = self.out(window, room).wrapping_add(rows.start * COLUMNS);
        for near in (0..deep.len()).step_by(NEAR * terms) {
            let depth = (NEAR * terms).min(deep.len() - near);
            let (w, step) = self.rows(rows.start, (deep, near), room.wide);
            let factors = Factors {
                w,
                steps: (step / terms, 1),
                x: self.x.taken(window, deep.start + near, depth),
                depth: depth / terms,
                before: self.before(rows, deep.start + near),
                ahead: next.from(near).by(terms),
            };
            // SAFETY: the ranges were checked above, the rows are this task's, the unit is there.
            unsafe { self.isa.tiles[rows.len() - 1](factors, out) }
        }
    }

    /// What these rows' sums from a depth on are added to: the bias at first, alone or with what is there.
    fn before(&self, rows: &Range<usize>, depth: usize) -> Before {
        let bias = &self.linear.bias[self.first + rows.start..][..rows.len()];
        match (depth, self.linear.then) {
            (0, then) => Before {
                kept: matches!(then, Then::Add),
                bias: bias.as_ptr(),
            },
            _ => Before::SUMS,
        }
    }

    /// Its rows from `row` on and, of this part of the depth, from `near` on: where they lie, or in the
    /// room. And how many values it is from a row to the next.
    fn rows(
        &self,
        row: usize,
        (deep, near): (&Range<usize>, usize),
        room: &[f32],
    ) -> (*const f32, usize) {
        let Matrix { values, depth, .. } = self.linear.matrix;
        let all = self.first * depth..(self.first + self.count) * depth;
        let place = row * depth + deep.start + near;
        match values {
            Values::F32(values) => (values[all][place..].as_ptr(), depth),
            Values::Bf16(values) if self.in_place() => {
                (values[all][place..].as_ptr().cast(), depth)
            }
            _ => (room[row * deep.len() + near..].as_ptr(), deep.len()),
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
