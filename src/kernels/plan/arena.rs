//! One allocation for all buffers of a forward: where each lies.

use super::{Kind, Matrix, Place, ProductShape, WINDOW};

/// What cuBLASLt's algorithms assume of every pointer.
pub(crate) const ALIGNMENT: usize = 256;

/// The sizes that an encoder's buffers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) width: usize,
    pub(crate) mlp_width: usize,
    /// 0 without a projection.
    pub(crate) projection: usize,
    pub(crate) kind: Kind,
}

/// Where the buffers lie, in bytes from the start.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    places: [usize; Place::ALL.len()],
    /// Ids, ends and hidden keys, uploaded in one copy.
    pub(crate) input: usize,
    /// Scratch memory of the products.
    pub(crate) workspace: usize,
    /// Bytes in all.
    pub(crate) size: usize,
    /// Windows that it has room for.
    pub(crate) windows: usize,
}

impl Sizes {
    /// Values in a row of a buffer.
    pub(crate) const fn row(&self, place: Place) -> usize {
        match place {
            Place::Stacked => 3 * self.width,
            Place::Inner => self.mlp_width,
            Place::Projected => self.projection,
            _ => self.width,
        }
    }

    /// Rows of a buffer for so many windows.
    pub(crate) const fn rows(place: Place, windows: usize) -> usize {
        if place.is_pooled() {
            windows
        } else {
            windows * WINDOW
        }
    }

    /// The type of a buffer's values.
    pub(crate) const fn kind(&self, place: Place) -> Kind {
        if place.is_f32() { Kind::F32 } else { self.kind }
    }

    /// The product that makes one buffer out of another.
    pub(crate) const fn product(&self, from: Place, to: Place, windows: usize) -> ProductShape {
        ProductShape {
            rows: Sizes::rows(from, windows),
            inputs: self.row(from),
            outputs: self.row(to),
            kind: self.kind,
            result: self.kind(to),
        }
    }

    /// Rows and columns of a matrix.
    pub(crate) const fn matrix(&self, which: Matrix) -> [usize; 2] {
        match which {
            Matrix::QueryKeyValue(_) => [3 * self.width, self.width],
            Matrix::Out(_) => [self.width, self.width],
            Matrix::Up(_) => [self.mlp_width, self.width],
            Matrix::Down(_) => [self.width, self.mlp_width],
            Matrix::Projection => [self.projection, self.width],
        }
    }

    /// The layout for so many windows, `None` if its size does not fit into a number.
    pub(crate) fn arena(&self, windows: usize, workspace: usize) -> Option<Arena> {
        let mut size = 0_usize;
        let mut take = |bytes: usize| -> Option<usize> {
            let start = size;
            size = size
                .checked_add(bytes)?
                .checked_next_multiple_of(ALIGNMENT)?;
            Some(start)
        };
        let mut places = [0; Place::ALL.len()];
        for (start, place) in places.iter_mut().zip(Place::ALL) {
            let values = Sizes::rows(place, windows).checked_mul(self.row(place))?;
            *start = take(values.checked_mul(self.kind(place).bytes())?)?;
        }
        let input = take(input_words(windows).checked_mul(size_of::<u32>())?)?;
        let workspace = take(workspace)?;
        Some(Arena {
            places,
            input,
            workspace,
            size,
            windows,
        })
    }
}

impl Arena {
    pub(crate) fn start(&self, place: Place) -> usize {
        let found = Place::ALL.iter().position(|other| *other == place);
        found.map_or(0, |index| self.places[index])
    }
}

/// Words of an upload: an id for each row, an end for each window, a hidden key for each row.
pub(crate) const fn input_words(windows: usize) -> usize {
    (2 * WINDOW + 1) * windows
}

/// Word at which the ends begin, and the hidden keys.
pub(crate) const fn input_parts(windows: usize) -> [usize; 2] {
    [WINDOW * windows, (WINDOW + 1) * windows]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plan::{PooledFrom, Spec, Step, steps};

    const BIG_G: Sizes = Sizes {
        width: 1280,
        mlp_width: 5120,
        projection: 1280,
        kind: Kind::F16,
    };

    #[test]
    fn buffers_do_not_overlap() {
        let arena = BIG_G.arena(3, 4096).unwrap();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for place in Place::ALL {
            let values = Sizes::rows(place, 3) * BIG_G.row(place);
            let start = arena.start(place);
            spans.push((start, start + values * BIG_G.kind(place).bytes()));
        }
        spans.push((arena.input, arena.input + 4 * input_words(3)));
        spans.push((arena.workspace, arena.workspace + 4096));
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{spans:?}");
        }
        assert!(
            spans
                .iter()
                .all(|(start, _)| start.is_multiple_of(ALIGNMENT))
        );
        assert!(spans.last().unwrap().1 <= arena.size);
        assert_eq!(arena.windows, 3);
    }

    #[test]
    fn sizes_are_those_of_the_buffers() {
        assert_eq!(BIG_G.row(Place::Stacked), 3840);
        assert_eq!(Sizes::rows(Place::X, 2), 154);
        assert_eq!(Sizes::rows(Place::Pooled, 2), 2);
        assert_eq!(BIG_G.kind(Place::Inner), Kind::F16);
        assert_eq!(BIG_G.kind(Place::Product), Kind::F32);
        assert_eq!(input_parts(2), [154, 156]);
        assert_eq!(input_words(2), 310);
    }

    #[test]
    fn products_fit_their_matrices() {
        let pooled = Some(PooledFrom {
            layer: 1,
            projected: true,
        });
        let spec = Spec {
            layer: 1,
            final_norm: true,
            pooled,
            hidden_keys: false,
        };
        for step in steps(&spec) {
            if let Step::Product(which, from, to) = step {
                let shape = BIG_G.product(from, to, 2);
                assert_eq!(
                    [shape.outputs, shape.inputs],
                    BIG_G.matrix(which),
                    "{which:?}"
                );
                assert_eq!(
                    shape.rows,
                    if which == Matrix::Projection { 2 } else { 154 }
                );
            }
        }
    }

    #[test]
    fn a_size_that_overflows_is_none() {
        assert!(BIG_G.arena(usize::MAX / 200_000, 0).is_none());
    }
}
