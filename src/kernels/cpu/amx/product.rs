//! A product with every panel of a group.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
use std::ops::Range;

use super::super::isa::Isa;
use super::super::linear::{Linear, Then};
use super::super::matrix::{Matrix, Values};
use super::super::panel::COLUMNS;
use super::super::shared::SharedMut;
use super::super::team::Team;
use super::parts::{copy_row, split_half_row, split_pair, split_row};
use super::unit::{DEEP, SIDE, Unit, VALUES, permitted};

/// Rows of a task.
const CHUNK: usize = 64;

/// Depth times parts that are taken at once: panels and matrix of it stay in the second cache.
const DEPTH: usize = 3072;

/// Steps of depth between two visits to the results: what they take stays in the nearest cache, and
/// sums of f32 stay short.
const NEAR: usize = 16;

/// Windows whose panels pass by together.
const WINDOWS: usize = 2;

/// Registers across a panel.
const ACROSS: usize = COLUMNS / SIDE;

/// Bytes between two rows of a panel of pairs.
const STRIDE: usize = COLUMNS * 2 * size_of::<u16>();

/// Most parts of a value.
const MOST: usize = 3;

/// Values (f32) of a task's room.
pub(in super::super) const ROOM: usize = SUMS + CHUNK * DEPTH / 2;

/// Values of four registers of sums.
const SUMS: usize = 4 * SIDE * SIDE;

/// Leave to use the unit.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Amx(());

impl Amx {
    /// `None` where there is no such unit.
    pub(in super::super) fn ask() -> Option<Amx> {
        permitted().then_some(Amx(()))
    }

    /// True if it can multiply by such a matrix.
    pub(in super::super) fn takes(matrix: &Matrix<'_>) -> bool {
        matrix.rows.is_multiple_of(2 * SIDE) && matrix.depth.is_multiple_of(DEEP)
    }
}

/// What [`linear`](super::super::linear::linear) does, on the unit; `room` takes the panels' parts.
pub(in super::super) fn linear(
    isa: &Isa,
    team: &Team<'_>,
    linear: Linear<'_>,
    x: &[f32],
    (out, room): (&mut [f32], &mut [f32]),
) {
    match linear.matrix.values {
        Values::Bf16(_) => parted::<1>(isa, team, linear, x, (out, room)),
        Values::F16(_) => parted::<2>(isa, team, linear, x, (out, room)),
        Values::F32(_) => parted::<3>(isa, team, linear, x, (out, room)),
    }
}

/// Values that the parts of so many panels take.
pub(in super::super) const fn parts_room(windows: usize, depth: usize) -> usize {
    windows * depth * COLUMNS * MOST / 2
}

fn parted<const PARTS: usize>(
    isa: &Isa,
    team: &Team<'_>,
    linear: Linear<'_>,
    x: &[f32],
    (out, room): (&mut [f32], &mut [f32]),
) {
    let Matrix { rows, depth, .. } = linear.matrix;
    let windows = x.len() / (depth * COLUMNS);
    assert!(Amx::takes(&linear.matrix) && linear.bias.len() == rows);
    assert!(out.len() >= windows * rows * COLUMNS && room.len() >= parts_room(windows, depth));
    let parts = SharedMut::new(room);
    split_panels::<PARTS>(team, x, depth, parts);
    let out = SharedMut::new(out);
    team.share_product((rows, CHUNK), windows, |rows, windows, room| {
        let part = Part::<PARTS> {
            isa,
            linear,
            parts,
            out,
            first: rows.start,
            count: rows.len(),
            windows,
        };
        // SAFETY: `Amx::ask` found the unit, tasks write other rows, and nobody writes the parts now.
        unsafe { part.run(room) }
    });
}

/// `[windows, depth, 80]` → `[windows, parts, depth / 2, 80, 2]` in bf16.
fn split_panels<const PARTS: usize>(
    team: &Team<'_>,
    x: &[f32],
    depth: usize,
    parts: SharedMut<'_>,
) {
    let blocks = depth / DEEP;
    team.share(x.len() / (DEEP * COLUMNS), |task, _| {
        let (window, block) = (task / blocks, task % blocks);
        for row in (block * DEEP..(block + 1) * DEEP).step_by(2) {
            let from = &x[(window * depth + row) * COLUMNS..][..2 * COLUMNS];
            // In values of f32, two of bf16 each.
            let at = (window * PARTS * depth + row) * COLUMNS / 2;
            let length = (PARTS - 1) * depth * COLUMNS / 2 + COLUMNS;
            let to = parts.at(at, length).cast();
            // SAFETY: `Amx::ask` found the instructions, and tasks write other rows.
            unsafe { split_pair::<PARTS>(from.as_ptr(), to, depth * COLUMNS) }
        }
    });
}

/// Some rows of a product, for some windows.
struct Part<'a, const PARTS: usize> {
    isa: &'a Isa,
    linear: Linear<'a>,
    parts: SharedMut<'a>,
    out: SharedMut<'a>,
    first: usize,
    count: usize,
    windows: Range<usize>,
}

/// A task's room.
struct Room<'a> {
    sums: &'a mut [f32],
    matrix: *mut u16,
}

impl<const PARTS: usize> Part<'_, PARTS> {
    unsafe fn run(&self, room: &mut [f32]) {
        let depth = self.linear.matrix.depth;
        let (sums, rest) = room.split_at_mut(SUMS);
        assert!(rest.len() >= self.count * DEPTH / 2);
        let matrix = rest.as_mut_ptr().cast();
        let mut room = Room { sums, matrix };
        let unit = Unit::begin();
        for from in (0..depth).step_by(DEPTH / PARTS) {
            let deep = (DEPTH / PARTS).min(depth - from);
            self.pack(from, deep, &mut room);
            for window in self.windows.clone().step_by(WINDOWS) {
                let windows = WINDOWS.min(self.windows.end - window);
                for near in (0..deep / DEEP).step_by(NEAR) {
                    let steps = near..(near + NEAR).min(deep / DEEP);
                    self.across(&unit, (window, windows), (from, deep), steps, &mut room);
                }
            }
        }
        drop(unit);
        if let Then::Activate(activation) = self.linear.then {
            for window in self.windows.clone() {
                let rows = self.rows(window);
                (self.isa.activate)(rows.as_mut_ptr(), rows.len(), activation);
            }
        }
    }

    /// Its rows of a window's result.
    #[expect(
        clippy::mut_from_ref,
        reason = "tasks have other rows, and one task one borrow"
    )]
    unsafe fn rows(&self, window: usize) -> &mut [f32] {
        let row = window * self.linear.matrix.rows + self.first;
        let length = self.count * COLUMNS;
        std::slice::from_raw_parts_mut(self.out.at(row * COLUMNS, length), length)
    }

    /// The rows of the matrix in parts, register by register:
    /// `[count / 32, deep / 32, parts, 2, 16, 32]`.
    unsafe fn pack(&self, from: usize, deep: usize, room: &mut Room<'_>) {
        let matrix = &self.linear.matrix;
        for row in 0..self.count {
            let block = row / (2 * SIDE) * (deep / DEEP) * PARTS * 2 * VALUES;
            let place = row / SIDE % 2 * VALUES + row % SIDE * DEEP;
            let to = room.matrix.add(block + place);
            let start = (self.first + row) * matrix.depth + from;
            let range = start..start + deep;
            match matrix.values {
                Values::F32(all) => split_row::<PARTS>(&all[range], to),
                Values::F16(all) => split_half_row::<PARTS>(&all[range], to),
                Values::Bf16(all) => copy_row(&all[range], to),
            }
        }
    }

    /// Some steps of depth, for all rows and the panels of some windows.
    unsafe fn across(
        &self,
        unit: &Unit,
        (window, windows): (usize, usize),
        (from, deep): (usize, usize),
        steps: Range<usize>,
        room: &mut Room<'_>,
    ) {
        let n_tiles = windows * ACROSS;
        for tile in (0..n_tiles).step_by(2) {
            let tiles = [tile, (tile + 1).min(n_tiles - 1)];
            let panels = tiles.map(|tile| self.panel(window + tile / ACROSS, tile % ACROSS, from));
            for row in (0..self.count).step_by(2 * SIDE) {
                let block = row / (2 * SIDE) * (deep / DEEP) * PARTS * 2 * VALUES;
                let factors = Factors::<PARTS> {
                    matrix: room.matrix.add(block),
                    panels,
                    part: self.linear.matrix.depth * COLUMNS,
                };
                factors.multiply(unit, steps.clone());
                unit.store(room.sums.as_mut_ptr());
                for (place, tile) in (tile..n_tiles.min(tile + 2)).enumerate() {
                    let rows = self.rows(window + tile / ACROSS);
                    let out = rows[row * COLUMNS..][..2 * SIDE * COLUMNS].as_mut_ptr();
                    let sums = room.sums.as_ptr().add(place * SIDE * SIDE);
                    let out = out.add(tile % ACROSS * SIDE);
                    let bias = &self.linear.bias[self.first + row..][..2 * SIDE];
                    match self.linear.then {
                        _ if from + steps.start > 0 => put::<true>(sums, None, out),
                        Then::Add => put::<true>(sums, Some(bias), out),
                        Then::Store | Then::Activate(_) => put::<false>(sums, Some(bias), out),
                    }
                }
            }
        }
    }

    /// The first part of a register of a window's panel.
    unsafe fn panel(&self, window: usize, across: usize, from: usize) -> *const u16 {
        let depth = self.linear.matrix.depth;
        let at = (window * PARTS * depth + from) * COLUMNS / 2;
        let last = ((PARTS - 1) * depth + DEEP) * COLUMNS / 2;
        let panel: *const u16 = self.parts.at(at, last).cast();
        panel.add(across * SIDE * 2)
    }
}

/// Where the parts of two registers of rows and two of columns begin.
struct Factors<const PARTS: usize> {
    matrix: *const u16,
    panels: [*const u16; 2],
    /// Values from one part of a panel to the next.
    part: usize,
}

impl<const PARTS: usize> Factors<PARTS> {
    /// The sums of all products that matter.
    #[inline(always)]
    unsafe fn multiply(&self, unit: &Unit, steps: Range<usize>) {
        unit.clear();
        for step in steps {
            for (matrix, panels) in pairs(PARTS) {
                self.step(unit, step, *matrix, *panels);
            }
        }
    }

    #[inline(always)]
    unsafe fn step(&self, unit: &Unit, step: usize, matrix: usize, panels: usize) {
        let at = panels * self.part + step * DEEP * COLUMNS;
        let panels = self.panels.map(|panel| panel.add(at));
        let matrix = self.matrix.add((step * PARTS + matrix) * 2 * VALUES);
        unit.multiply(matrix, panels, STRIDE);
    }
}

/// Parts of the matrix and of the panels whose products matter, small ones first.
const fn pairs(parts: usize) -> &'static [(usize, usize)] {
    match parts {
        1 => &[(0, 0)],
        2 => &[(0, 1), (1, 0), (0, 0)],
        _ => &[(2, 0), (1, 1), (0, 2), (0, 1), (1, 0), (0, 0)],
    }
}

/// Puts two blocks of sums, [`SUMS`]` / 2` values apart, into rows of a panel: with a bias, and added
/// to what is there.
#[target_feature(enable = "avx512f")]
unsafe fn put<const ADD: bool>(sums: *const f32, bias: Option<&[f32]>, out: *mut f32) {
    for row in 0..2 * SIDE {
        let mut value = _mm512_loadu_ps(sums.add(row / SIDE * SUMS / 2 + row % SIDE * SIDE));
        if let Some(bias) = bias {
            value = _mm512_add_ps(value, _mm512_set1_ps(bias[row]));
        }
        let out = out.add(row * COLUMNS);
        if ADD {
            value = _mm512_add_ps(value, _mm512_loadu_ps(out));
        }
        _mm512_storeu_ps(out, value);
    }
}
