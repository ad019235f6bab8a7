//! A product with every panel of a group.

use std::ops::Range;

use super::super::ahead::Ahead;
use super::super::groups::GROUP;
use super::super::isa::Isa;
use super::super::linear::Linear;
use super::super::matrix::{Matrix, Values};
use super::super::panels::Panels;
use super::super::team::Lead;
use super::finish::{Finish, add};
use super::parts::{ACROSS, Parts, pairs, step};
use super::rows::{DEPTH, ROWS, Rows};
use super::unit::{DEEP, SUMS, Unit, permitted};

/// Rows of a task: where many windows pass by, as many as leave room for two of them in the second
/// cache.
const FEW: usize = 64;
const MANY: usize = 128;

/// Pairs of registers that pass by together: two windows.
const TOGETHER: usize = 5;

/// Steps of depth that are summed up at once where sums of f32 must stay short.
const SHORT: usize = 16;

/// Values of a task's room for sums: one block for now, and one for each pair of registers of rows and
/// columns.
const BLOCKS: usize = 1 + MANY / ROWS * pairs(GROUP);

/// Values (f32) of a task's room.
pub(in super::super) const ROOM: usize = BLOCKS * SUMS + MANY * DEPTH / 2;

/// Leave to use the unit.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Amx(());

impl Amx {
    /// `None` where there is no such unit.
    pub(in super::super) fn ask() -> Option<Amx> {
        permitted().then_some(Amx(()))
    }

    /// The same; software in its place where there is none, and nothing where that cannot be.
    #[cfg(test)]
    pub(super) fn or_stand_in() -> Option<Amx> {
        Amx::ask().or_else(|| super::stand_in().then_some(Amx(())))
    }

    /// True if it can multiply by such a matrix.
    #[expect(
        clippy::unused_self,
        reason = "who has no unit has nothing that takes a matrix"
    )]
    pub(in super::super) fn takes(self, matrix: &Matrix<'_>) -> bool {
        whole(matrix)
    }
}

/// True if such a matrix is whole blocks of the unit's.
pub(in super::super) fn whole(matrix: &Matrix<'_>) -> bool {
    matrix.rows.is_multiple_of(ROWS) && matrix.depth.is_multiple_of(DEEP)
}

/// What [`linear`](super::super::linear::linear) does, on the unit.
pub(in super::super) fn linear(
    isa: &Isa,
    lead: Lead<'_>,
    linear: Linear<'_>,
    parts: Parts<'_>,
    out: Panels<'_>,
) {
    match linear.matrix.values {
        Values::Bf16(_) => parted::<1>(isa, lead, linear, parts, out),
        Values::F16(_) => parted::<2>(isa, lead, linear, parts, out),
        Values::F32(_) => parted::<3>(isa, lead, linear, parts, out),
    }
}

fn parted<const PARTS: usize>(
    isa: &Isa,
    lead: Lead<'_>,
    linear: Linear<'_>,
    panels: Parts<'_>,
    out: Panels<'_>,
) {
    let Linear { matrix, bias, then } = linear;
    let windows = out.windows();
    assert!(windows <= GROUP && panels.count() == PARTS);
    assert!(bias.len() == matrix.rows && out.features() == matrix.rows && whole(&matrix));
    let finish = Finish {
        isa,
        then,
        bias,
        out,
    };
    let chunk = if windows > 2 { MANY } else { FEW };
    let share = (matrix.rows, chunk);
    lead.share_product(share, pairs(windows), |rows, pairs, room| {
        let part = Part::<PARTS> {
            matrix,
            panels,
            finish,
            first: rows.start,
            count: rows.len(),
            pairs,
        };
        // SAFETY: `Amx::ask` found the unit, tasks have other rows or columns, and nobody writes the
        // panels now.
        unsafe { part.run(room) }
    });
}

/// Some rows of a product, for some pairs of registers of the panels.
struct Part<'a, const PARTS: usize> {
    matrix: Matrix<'a>,
    panels: Parts<'a>,
    finish: Finish<'a>,
    first: usize,
    count: usize,
    pairs: Range<usize>,
}

/// A part of the depth, and the rows' part of it.
struct Slice<const PARTS: usize> {
    from: usize,
    deep: usize,
    rows: Rows<PARTS>,
}

/// A block of the result, and steps of depth.
struct Block {
    row: usize,
    pair: usize,
    steps: Range<usize>,
    ahead: Ahead,
}

impl<const PARTS: usize> Part<'_, PARTS> {
    unsafe fn run(&self, room: &mut [f32]) {
        let depth = self.matrix.depth;
        let (sums, rest) = room.split_at_mut(BLOCKS * SUMS);
        assert!(rest.len() >= self.count * DEPTH / 2 && self.count <= MANY);
        let place = rest.as_mut_ptr().cast();
        let unit = Unit::begin();
        for from in (0..depth).step_by(DEPTH / PARTS) {
            let deep = (DEPTH / PARTS).min(depth - from);
            let rows = Rows::new(&self.matrix, (self.first, self.count), (from, deep), place);
            let slice = Slice { from, deep, rows };
            for pair in self.pairs.clone().step_by(TOGETHER) {
                let pairs = pair..self.pairs.end.min(pair + TOGETHER);
                self.together(&unit, &slice, pairs, sums);
            }
        }
    }

    /// All rows for some pairs, for a part of the depth.
    unsafe fn together(
        &self,
        unit: &Unit,
        slice: &Slice<PARTS>,
        pairs: Range<usize>,
        sums: &mut [f32],
    ) {
        let n_steps = slice.deep / DEEP;
        let near = if PARTS > 2 { SHORT } else { n_steps };
        for step in (0..n_steps).step_by(near) {
            let steps = step..n_steps.min(step + near);
            for row in (0..self.count).step_by(ROWS) {
                let ahead = self.ahead(slice, row, &pairs);
                for pair in pairs.clone() {
                    let block = Block {
                        row,
                        pair,
                        steps: steps.clone(),
                        ahead: ahead.share(ROWS, pair - pairs.start, pairs.len()),
                    };
                    self.block(unit, slice, &block, sums);
                }
            }
        }
    }

    /// What comes after these rows: bf16 is needed as the next rows of this task, what is split as
    /// the rows in this place of the next task; or the same rows' next part of the depth.
    fn ahead(&self, slice: &Slice<PARTS>, row: usize, pairs: &Range<usize>) -> Ahead {
        if pairs.start > self.pairs.start {
            return Ahead::NOTHING;
        }
        let below = row + if PARTS == 1 { ROWS } else { self.count };
        let after = slice.from + slice.deep;
        let (row, depth) = match (below < self.count, after < self.matrix.depth) {
            (true, _) => (below, slice.from),
            (false, true) => (below - self.count, after),
            (false, false) => (below, 0),
        };
        Ahead::new(&self.matrix, self.first + row, ROWS, depth)
    }

    /// Multiplies some steps of a block.
    unsafe fn block(&self, unit: &Unit, slice: &Slice<PARTS>, block: &Block, sums: &mut [f32]) {
        let panels = self.panels.at(block.pair, slice.from);
        unit.clear();
        for number in block.steps.clone() {
            block.ahead.ask(number * DEEP, DEEP);
            let panels = panels.add(number * step(PARTS));
            multiply(unit, &slice.rows, (block.row, number), panels);
        }
        self.take(unit, slice, block, sums);
    }

    /// Takes the sums of these steps: they are kept until the last are there, then the block is finished.
    unsafe fn take(&self, unit: &Unit, slice: &Slice<PARTS>, block: &Block, sums: &mut [f32]) {
        let first = slice.from + block.steps.start == 0;
        let last = slice.from + block.steps.end * DEEP == self.matrix.depth;
        let (now, kept) = sums.split_at_mut(SUMS);
        let now = now.as_mut_ptr();
        let pair = block.pair - self.pairs.start;
        let place = (block.row / ROWS * self.pairs.len() + pair) * SUMS;
        let kept = kept[place..][..SUMS].as_mut_ptr();
        let (all, more) = if last { (now, kept) } else { (kept, now) };
        if first {
            unit.store(all);
        } else {
            unit.store(now);
            add(all, more);
        }
        if last {
            let windows = self.finish.out.windows();
            let registers = 2 * block.pair..(windows * ACROSS).min(2 * block.pair + 2);
            self.finish.put(all, self.first + block.row, registers);
        }
    }
}

/// Adds a step's products of parts that matter. From one to the next either the matrix or the panels
/// stay in their registers.
#[inline(always)]
unsafe fn multiply<const PARTS: usize>(
    unit: &Unit,
    rows: &Rows<PARTS>,
    (row, number): (usize, usize),
    panels: *const u16,
) {
    let rows = |part: usize| rows.at(row, number, part);
    let panels = |part: usize| panels.add(part * step(1));
    match PARTS {
        1 => unit.multiply(rows(0), panels(0)),
        2 => {
            unit.multiply(rows(0), panels(1));
            unit.other_panels(panels(0));
            unit.other_rows(rows(1));
        }
        _ => {
            unit.multiply(rows(0), panels(2));
            unit.other_panels(panels(1));
            unit.other_rows(rows(1));
            unit.other_panels(panels(0));
            unit.other_rows(rows(2));
            unit.other_rows(rows(0));
        }
    }
}
