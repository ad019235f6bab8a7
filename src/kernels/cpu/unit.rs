//! The units that a run works on, and which of them makes a product.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::isa::Isa;
use super::linear::{self, Linear};
#[cfg(target_arch = "x86_64")]
use super::matrix::Matrix;
use super::panel::COLUMNS;
use super::panels::Panels;
use super::team::Team;

/// A vector unit, and a matrix unit where there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub(super) isa: &'static Isa,
    #[cfg(target_arch = "x86_64")]
    pub(super) amx: Option<amx::Amx>,
}

impl Units {
    /// The vector unit alone.
    pub(super) fn vector(isa: &'static Isa) -> Units {
        Units {
            isa,
            #[cfg(target_arch = "x86_64")]
            amx: None,
        }
    }

    /// For reports.
    pub(super) fn name(self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        if self.amx.is_some() {
            return "amx";
        }
        self.isa.name
    }

    /// Values that a thread needs for its part of a product.
    pub(super) fn room(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.amx.is_some() {
            return linear::ROOM.max(amx::ROOM);
        }
        linear::ROOM
    }

    /// Values of a second form of so many panels, as [`Panels::both`] takes.
    ///
    /// [`Panels::both`]: super::panels::Panels::both
    pub(super) fn second_room(self, windows: usize, features: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.amx.is_some() {
            return amx::Parts::room(windows, features);
        }
        let _ = (windows, features);
        0
    }

    /// Values of so many panels in the only form that a product takes.
    pub(super) fn only_room(self, windows: usize, features: usize) -> usize {
        let floats = windows * features * COLUMNS;
        floats.max(self.second_room(windows, features))
    }

    /// True if the matrix unit makes products with such a matrix.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn takes(self, matrix: &Matrix<'_>) -> bool {
        self.amx.is_some_and(|amx| amx.takes(matrix))
    }

    /// Room for the parts that such a product takes.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn parts<'a>(
        self,
        matrix: &Matrix<'_>,
        windows: usize,
        room: &'a mut [f32],
    ) -> Option<amx::Parts<'a>> {
        self.amx?.parts(matrix, windows, room)
    }

    /// `matrix · panel + bias` for each panel, and what becomes of it:
    /// `[windows, depth, 80]` → `[windows, rows, 80]`.
    pub(super) fn linear(
        self,
        team: &Team<'_>,
        product: Linear<'_>,
        x: Panels<'_>,
        out: Panels<'_>,
    ) {
        assert!(x.features() == product.matrix.depth && x.windows() == out.windows());
        #[cfg(target_arch = "x86_64")]
        if let Some(parts) = x.parts() {
            return amx::linear(self.isa, team, product, parts, out);
        }
        linear::linear(self.isa, team, product, x, out);
    }
}
