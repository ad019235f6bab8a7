//! The units that a run works on, and which of them makes a product.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::isa::Isa;
use super::linear::{self, Linear};
use super::panel::COLUMNS;
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

    /// Values that a product needs for its panels.
    pub(super) fn panels_room(self, windows: usize, depth: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.amx.is_some() {
            return amx::parts_room(windows, depth);
        }
        let _ = (windows, depth);
        0
    }

    /// `matrix · panel + bias` for each panel, and what becomes of it:
    /// `[windows, depth, 80]` → `[windows, rows, 80]`.
    pub(super) fn linear(
        self,
        team: &Team<'_>,
        product: Linear<'_>,
        x: &[f32],
        (out, room): (&mut [f32], &mut [f32]),
    ) {
        debug_assert_eq!(x.len() % (product.matrix.depth * COLUMNS), 0);
        #[cfg(target_arch = "x86_64")]
        if self.amx.is_some() && amx::Amx::takes(&product.matrix) {
            return amx::linear(self.isa, team, product, x, (out, room));
        }
        let _ = room;
        linear::linear(self.isa, team, product, x, out);
    }
}
