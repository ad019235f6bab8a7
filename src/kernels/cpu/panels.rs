//! Panels of a group between two operations, in the forms that their reader wants.

#[cfg(target_arch = "x86_64")]
use super::amx::{DEEP, Parts};
use super::matrix::Matrix;
use super::panel::COLUMNS;
use super::shared::SharedMut;
use super::unit::Units;

/// Where the one operation puts values and the other takes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    /// `[windows, features, 80]`. Empty if nothing but the parts is wanted.
    floats: SharedMut<'a>,
    features: usize,
    windows: usize,
    #[cfg(target_arch = "x86_64")]
    parts: Option<Parts<'a>>,
}

impl<'a> Panels<'a> {
    /// As they are.
    pub(super) fn plain(floats: &'a mut [f32], features: usize, windows: usize) -> Panels<'a> {
        assert!(floats.len() >= windows * features * COLUMNS);
        Panels {
            floats: SharedMut::new(floats),
            features,
            windows,
            #[cfg(target_arch = "x86_64")]
            parts: None,
        }
    }

    /// What a product with this matrix takes, and the values themselves; `room` may take a second form.
    pub(super) fn both(
        units: Units,
        matrix: &Matrix<'_>,
        windows: usize,
        (floats, room): (&'a mut [f32], &'a mut [f32]),
    ) -> Panels<'a> {
        let panels = Panels::plain(floats, matrix.depth, windows);
        #[cfg(target_arch = "x86_64")]
        let panels = Panels {
            parts: units.parts(matrix, windows, room),
            ..panels
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (units, room);
        panels
    }

    /// What a product with this matrix takes, and nothing else.
    pub(super) fn only(
        units: Units,
        matrix: &Matrix<'_>,
        windows: usize,
        room: &'a mut [f32],
    ) -> Panels<'a> {
        #[cfg(target_arch = "x86_64")]
        if units.takes(matrix) {
            return Panels {
                floats: SharedMut::new(&mut []),
                features: matrix.depth,
                windows,
                parts: units.parts(matrix, windows, room),
            };
        }
        let _ = units;
        Panels::plain(room, matrix.depth, windows)
    }

    /// Features of a panel.
    pub(super) fn features(self) -> usize {
        self.features
    }

    /// Windows: one for each panel.
    pub(super) fn windows(self) -> usize {
        self.windows
    }

    /// Some rows of a window's panel.
    pub(super) fn rows(self, window: usize, first: usize, count: usize) -> *mut f32 {
        let row = window * self.features + first;
        self.floats.at(row * COLUMNS, count * COLUMNS)
    }

    /// The parts, where they are wanted.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn parts(self) -> Option<Parts<'a>> {
        self.parts
    }

    /// Tells that values are in their place: these rows, and sixteen columns each from these on.
    ///
    /// # Safety
    ///
    /// They are, the unit is there, and nobody else writes them or their parts now.
    pub(super) unsafe fn ready(
        self,
        window: usize,
        rows: std::ops::Range<usize>,
        columns: impl IntoIterator<Item = usize>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(parts) = self.parts {
            for column in columns {
                let register = (window * COLUMNS + column) / 16;
                for depth in rows.clone().step_by(DEEP) {
                    let from = self.rows(window, depth, DEEP).add(column);
                    parts.put((register, depth), from, (DEEP, COLUMNS));
                }
            }
            return;
        }
        let _ = (window, rows, columns);
    }
}
