//! Sums → results: bias, what is there already, activation, and the form that the next operation wants.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
use std::ops::Range;

use super::super::isa::Isa;
use super::super::linear::Then;
use super::super::panel::COLUMNS;
use super::super::panels::{Form, Panels};
use super::parts::ACROSS;
use super::rows::ROWS;
use super::unit::{SIDE, SUMS};

/// What becomes of sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish<'a> {
    pub(super) isa: &'a Isa,
    pub(super) then: Then,
    /// One value for each row of the matrix.
    pub(super) bias: &'a [f32],
    pub(super) out: Panels<'a>,
}

impl Finish<'_> {
    /// Two registers of rows, from `row` on, and these columns of registers.
    ///
    /// # Safety
    ///
    /// The unit is there, `sums` are the unit's, and no other thread has these rows and columns.
    pub(super) unsafe fn put(&self, sums: *mut f32, row: usize, registers: Range<usize>) {
        let mut bias = Some(&self.bias[row..row + ROWS]);
        if let Then::Activate(activation) = self.then {
            biased(sums, bias.take().unwrap_or_default());
            (self.isa.activate)(sums, SUMS, activation);
        }
        for (place, register) in registers.enumerate() {
            let sums = sums.add(place * SIDE * SIDE);
            if let Some(Form::Parts(parts)) = self.out.form() {
                for below in 0..2 {
                    let from = sums.add(below * SUMS / 2);
                    parts.put((register, row + below * SIDE), from, (SIDE, SIDE));
                }
                continue;
            }
            let out = self.out.rows(register / ACROSS, row, ROWS);
            let out = out.add(register % ACROSS * SIDE);
            match self.then {
                Then::Add => rows::<true>(sums, bias, out),
                Then::Store | Then::Activate(_) => rows::<false>(sums, bias, out),
            }
        }
    }
}

/// Adds the sums of another part of the depth.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add(sums: *mut f32, more: *const f32) {
    for place in (0..SUMS).step_by(SIDE) {
        let value = _mm512_loadu_ps(sums.add(place));
        let value = _mm512_add_ps(value, _mm512_loadu_ps(more.add(place)));
        _mm512_storeu_ps(sums.add(place), value);
    }
}

/// Adds the bias in place.
#[target_feature(enable = "avx512f")]
unsafe fn biased(sums: *mut f32, bias: &[f32]) {
    for (row, bias) in bias.iter().enumerate() {
        for across in 0..2 {
            let sums = sums.add(row / SIDE * SUMS / 2 + (across * SIDE + row % SIDE) * SIDE);
            let value = _mm512_add_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(*bias));
            _mm512_storeu_ps(sums, value);
        }
    }
}

/// A column of registers → rows of a panel.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const ADD: bool>(sums: *const f32, bias: Option<&[f32]>, out: *mut f32) {
    for row in 0..ROWS {
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
