//! Panels of a group between two operations, in the forms that their reader wants.

#[cfg(target_arch = "x86_64")]
use super::amx::{DEEP, Parts};
#[cfg(target_arch = "x86_64")]
use super::dots::{TWO, Words};
use super::matrix::Matrix;
use super::panel::COLUMNS;
use super::shared::SharedMut;
use super::unit::Units;

/// Where the one operation puts values and the other takes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    /// `[windows, features, 80]`; none if nothing but the other form is wanted.
    floats: Option<SharedMut<'a>>,
    /// Those that are meant: the first one, and how many.
    first: usize,
    features: usize,
    /// Features from a window to the next.
    stride: usize,
    windows: usize,
    form: Option<Form<'a>>,
}

/// What a product takes in place of the values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    #[cfg(target_arch = "x86_64")]
    Parts(Parts<'a>),
    #[cfg(target_arch = "x86_64")]
    Words(Words<'a>),
    #[cfg(not(target_arch = "x86_64"))]
    #[expect(dead_code, reason = "there is no other form elsewhere")]
    Never(std::convert::Infallible, std::marker::PhantomData<&'a ()>),
}

impl<'a> Panels<'a> {
    /// As they are.
    pub(super) fn plain(floats: &'a mut [f32], features: usize, windows: usize) -> Panels<'a> {
        assert!(floats.len() >= windows * features * COLUMNS);
        Panels {
            floats: Some(SharedMut::new(floats)),
            first: 0,
            features,
            stride: features,
            windows,
            form: None,
        }
    }

    /// What a product with this matrix takes, and the values themselves; `room` may take another form.
    pub(super) fn both(
        units: Units,
        matrix: &Matrix<'_>,
        windows: usize,
        (floats, room): (&'a mut [f32], &'a mut [f32]),
    ) -> Panels<'a> {
        Panels {
            form: units.form(matrix, windows, room),
            ..Panels::plain(floats, matrix.depth, windows)
        }
    }

    /// What a product with this matrix takes, and nothing else.
    pub(super) fn only(
        units: Units,
        matrix: &Matrix<'_>,
        windows: usize,
        room: &'a mut [f32],
    ) -> Panels<'a> {
        if !units.wants_form(matrix) {
            return Panels::plain(room, matrix.depth, windows);
        }
        Panels {
            floats: None,
            first: 0,
            features: matrix.depth,
            stride: matrix.depth,
            windows,
            form: units.form(matrix, windows, room),
        }
    }

    /// The first features of each panel, and the others.
    ///
    /// # Panics
    ///
    /// If there are not so many, or if another form is wanted of a part of them.
    pub(super) fn split(self, count: usize) -> (Panels<'a>, Panels<'a>) {
        let others = self.features - count;
        assert!(self.form.is_none() || others == 0);
        let first = Panels {
            features: count,
            ..self
        };
        let rest = Panels {
            first: self.first + count,
            features: others,
            ..self
        };
        (first, rest)
    }

    /// Features of a panel.
    pub(super) fn features(self) -> usize {
        self.features
    }

    /// Windows: one for each panel.
    pub(super) fn windows(self) -> usize {
        self.windows
    }

    /// True if the values themselves are wanted.
    pub(super) fn has_values(self) -> bool {
        self.floats.is_some()
    }

    /// Some rows of a window's panel.
    ///
    /// # Panics
    ///
    /// If there are no values, or not so many rows.
    pub(super) fn rows(self, window: usize, first: usize, count: usize) -> *mut f32 {
        assert!(first + count <= self.features);
        let row = window * self.stride + self.first + first;
        let Some(floats) = self.floats else {
            panic!("these panels hold another form of their values alone");
        };
        floats.at(row * COLUMNS, count * COLUMNS)
    }

    /// The same as a vector unit's product takes them.
    pub(super) fn taken(self, window: usize, first: usize, count: usize) -> *const f32 {
        match self.form {
            #[cfg(target_arch = "x86_64")]
            Some(Form::Words(words)) => words.rows(window, first / TWO, count / TWO),
            _ => self.rows(window, first, count),
        }
    }

    /// The other form, where it is wanted.
    pub(super) fn form(self) -> Option<Form<'a>> {
        self.form
    }

    /// Tells that values are in their place: these rows, and sixteen columns each from these on.
    ///
    /// # Safety
    ///
    /// They are, the unit is there, and nobody else writes them or their other form now.
    pub(super) unsafe fn ready(
        self,
        window: usize,
        rows: std::ops::Range<usize>,
        columns: impl IntoIterator<Item = usize>,
    ) {
        if self.form.is_some() {
            let from = self.rows(window, rows.start, rows.len());
            self.put(window, rows, columns, from);
        }
    }

    /// The same for rows that lie elsewhere, from `from` on.
    ///
    /// # Safety
    ///
    /// As [`ready`](Self::ready).
    pub(super) unsafe fn put(
        self,
        window: usize,
        rows: std::ops::Range<usize>,
        columns: impl IntoIterator<Item = usize>,
        from: *const f32,
    ) {
        #[cfg(target_arch = "x86_64")]
        for column in columns {
            let from = from.add(column);
            match self.form {
                Some(Form::Parts(parts)) => {
                    let register = (window * COLUMNS + column) / 16;
                    for depth in rows.clone().step_by(DEEP) {
                        let from = from.add((depth - rows.start) * COLUMNS);
                        parts.put((register, depth), from, (DEEP, COLUMNS));
                    }
                }
                Some(Form::Words(words)) => {
                    words.put((window, column), (rows.start, rows.len()), from);
                }
                None => return,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (window, rows, columns, from);
    }
}
