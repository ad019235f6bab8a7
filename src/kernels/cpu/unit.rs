//! The units that a run works on, and which of them makes a product.
#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "elsewhere panels have no other form")
)]

use candle_core::DType;

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::dots::Words;
use super::isa::{self, Isa};
use super::linear::{self, Linear};
use super::matrix::Matrix;
use super::panel::COLUMNS;
use super::panels::{Form, Panels};
use super::team::Lead;

/// A vector unit, and what makes some products faster where it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub(super) isa: &'static Isa,
    pub(super) products: Products,
}

/// What makes products.
#[derive(Clone, Copy, Debug)]
pub(super) enum Products {
    /// The vector unit, all of them.
    Vector,
    /// Its products of bf16 those with such matrices.
    #[cfg(target_arch = "x86_64")]
    Dots(&'static Isa),
    /// The matrix unit those that are whole blocks.
    #[cfg(target_arch = "x86_64")]
    Matrix(amx::Amx),
}

impl Units {
    /// What this machine has, best first.
    pub(super) fn available() -> Vec<Units> {
        let vector = isa::available();
        let units = vector.iter().copied().map(Units::vector);
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut units: Vec<Units> = units.collect();
        #[cfg(target_arch = "x86_64")]
        if let Some(isa) = vector.first().copied() {
            if let Some(dots) = isa::dots() {
                let products = Products::Dots(dots);
                let place = usize::from(!isa::dots_are_faster());
                units.insert(place, Units { isa, products });
            }
            if let Some(amx) = amx::Amx::ask() {
                let products = Products::Matrix(amx);
                units.insert(0, Units { isa, products });
            }
        }
        units
    }

    /// The vector unit alone.
    pub(super) fn vector(isa: &'static Isa) -> Units {
        Units {
            isa,
            products: Products::Vector,
        }
    }

    /// For reports.
    pub(super) fn name(self) -> &'static str {
        match self.products {
            Products::Vector => self.isa.name,
            #[cfg(target_arch = "x86_64")]
            Products::Dots(isa) => isa.name,
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => "amx",
        }
    }

    /// True if products with matrices of this type are those with the same matrices in f32, to the bit.
    pub(super) fn widens(self, stored: DType) -> bool {
        match self.products {
            Products::Vector => matches!(stored, DType::F16 | DType::BF16),
            #[cfg(target_arch = "x86_64")]
            Products::Dots(_) => stored == DType::F16,
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => false,
        }
    }

    /// Values that a thread needs for its part of a product.
    pub(super) fn room(self) -> usize {
        match self.products {
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => linear::ROOM.max(amx::ROOM),
            _ => linear::ROOM,
        }
    }

    /// Values of another form of so many panels, as [`Panels::both`] takes.
    ///
    /// [`Panels::both`]: super::panels::Panels::both
    pub(super) fn second_room(self, windows: usize, features: usize) -> usize {
        match self.products {
            Products::Vector => 0,
            #[cfg(target_arch = "x86_64")]
            Products::Dots(_) => Words::room(windows, features),
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => amx::Parts::room(windows, features),
        }
    }

    /// Values of so many panels in the only form that a product takes.
    pub(super) fn only_room(self, windows: usize, features: usize) -> usize {
        let floats = windows * features * COLUMNS;
        floats.max(self.second_room(windows, features))
    }

    /// True if a product with such a matrix takes another form of its panels.
    pub(super) fn wants_form(self, matrix: &Matrix<'_>) -> bool {
        match self.products {
            Products::Vector => false,
            #[cfg(target_arch = "x86_64")]
            Products::Dots(_) => Words::take(matrix),
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(amx) => amx.takes(matrix),
        }
    }

    /// Room for the form that such a product takes, if it takes another.
    pub(super) fn form<'a>(
        self,
        matrix: &Matrix<'_>,
        windows: usize,
        room: &'a mut [f32],
    ) -> Option<Form<'a>> {
        if !self.wants_form(matrix) {
            return None;
        }
        match self.products {
            Products::Vector => None,
            #[cfg(target_arch = "x86_64")]
            Products::Dots(_) => {
                let words = Words::new(matrix.depth, windows, room);
                Some(Form::Words(words))
            }
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => {
                let parts = amx::Parts::new(matrix, windows, room);
                Some(Form::Parts(parts))
            }
        }
    }

    /// `matrix · panel + bias` for each panel, and what becomes of it:
    /// `[windows, depth, 80]` → `[windows, rows, 80]`.
    pub(super) fn linear(
        self,
        lead: Lead<'_>,
        product: Linear<'_>,
        x: Panels<'_>,
        out: Panels<'_>,
    ) {
        assert!(x.features() == product.matrix.depth && x.windows() == out.windows());
        match (self.products, x.form()) {
            #[cfg(target_arch = "x86_64")]
            (Products::Matrix(_), Some(Form::Parts(parts))) => {
                amx::linear(self.isa, lead, product, parts, out);
            }
            #[cfg(target_arch = "x86_64")]
            (Products::Dots(isa), Some(Form::Words(_))) => {
                linear::linear(isa, lead, product, x, out);
            }
            _ => linear::linear(self.isa, lead, product, x, out),
        }
    }
}
