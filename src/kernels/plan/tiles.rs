//! Our own products for few rows (`few_rows.cu`): which they can make, in which tiles, with how many blocks.

use serde::{Deserialize, Serialize};

use super::source::{Launch, launch};
use super::{Kind, ProductShape, WINDOW};

/// Above so many rows a library's kernels fill a card.
pub(crate) const MOST_ROWS: usize = 8 * WINDOW;

/// Rows of a tile (`TILE_ROWS` in `few_rows.cu`).
const ROWS: usize = 80;

/// Depth of a stage, stages, and warps of a block (`DEEP`, `STAGES` and `PRODUCT_WARPS` there).
const DEEP: usize = 64;
const STAGES: usize = 4;
const WARPS: usize = 4;

/// Values between rows of sums (`SUMS_STRIDE` there).
const PADDING: usize = 8;

/// Columns of a tile: one kernel for each.
pub(crate) const COLUMNS: [usize; 2] = [32, 64];

/// Into how many parts the depth is cut.
const PARTS: [usize; 6] = [1, 2, 3, 4, 6, 8];

/// Columns up to which several planes of sums are added up (`residual_norm_planes` in `entries.cu`, by at most 512
/// threads with four columns each).
const MOST_COLUMNS: usize = 4 * 512;

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tiles {
    /// One of [`COLUMNS`].
    pub(crate) columns: usize,
    /// Parts of the depth, each of which gives a plane of sums in f32.
    pub(crate) parts: usize,
}

impl Tiles {
    /// All ways to make a product; none where these kernels do not make it. Sums in f32 go to planes, for
    /// which there are so many bytes.
    pub(crate) fn all(shape: &ProductShape, room: usize) -> Vec<Tiles> {
        let each = COLUMNS
            .iter()
            .flat_map(|columns| PARTS.map(|parts| (*columns, parts)));
        let all = each.map(|(columns, parts)| Tiles { columns, parts });
        all.filter(|tiles| tiles.fit(shape, room)).collect()
    }

    /// True if they can make this product.
    pub(crate) fn fit(self, shape: &ProductShape, room: usize) -> bool {
        let sixteen_bits = matches!(shape.kind, Kind::F16 | Kind::Bf16);
        let whole = shape.inputs.is_multiple_of(DEEP)
            && COLUMNS.contains(&self.columns)
            && shape.outputs.is_multiple_of(self.columns);
        let stages = shape.inputs / DEEP;
        let share = stages.div_ceil(self.parts.max(1));
        let none_empty = self.parts > 0 && share > 0 && (self.parts - 1) * share < stages;
        let planes = match shape.result {
            Kind::F32 => {
                let added_up = self.parts == 1 || shape.outputs <= MOST_COLUMNS;
                added_up && self.planes_size(shape).is_some_and(|size| size <= room)
            }
            Kind::F16 | Kind::Bf16 => self.parts == 1 && shape.result == shape.kind,
        };
        (1..=MOST_ROWS).contains(&shape.rows) && sixteen_bits && whole && none_empty && planes
    }

    fn planes_size(self, shape: &ProductShape) -> Option<usize> {
        let values = shape.rows.checked_mul(shape.outputs)?;
        values.checked_mul(self.parts)?.checked_mul(4)
    }

    /// Blocks and threads of a product that fits.
    pub(crate) fn launch(self, shape: &ProductShape) -> Option<Launch> {
        let down = shape.rows.div_ceil(ROWS).checked_mul(self.parts)?;
        let across = shape.outputs.checked_div(self.columns)?;
        let launch = launch(across, down, 32 * WARPS)?;
        let shared = u32::try_from(Tiles::shared(self.columns)).ok()?;
        Some(Launch { shared, ..launch })
    }

    /// Bytes of shared memory of a block with so many columns: for the stages, and after them for the sums.
    pub(crate) const fn shared(columns: usize) -> usize {
        let stages = STAGES * (ROWS + columns) * DEEP * 2;
        let sums = WARPS * ROWS * (columns + PADDING) * 4;
        if stages > sums { stages } else { sums }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW_ROWS: &str = include_str!("../cuda/few_rows.cu");
    const ENTRIES: &str = include_str!("../cuda/entries.cu");

    fn shape(rows: usize, inputs: usize, outputs: usize, result: Kind) -> ProductShape {
        ProductShape {
            rows,
            inputs,
            outputs,
            kind: Kind::F16,
            result,
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_kernels() {
        for line in [
            format!("constexpr int TILE_ROWS = {ROWS};"),
            format!("constexpr int DEEP = {DEEP};"),
            format!("constexpr int STAGES = {STAGES};"),
            format!("constexpr int PRODUCT_WARPS = {WARPS};"),
            format!("constexpr int SUMS_STRIDE = COLUMNS + {PADDING};"),
        ] {
            assert!(FEW_ROWS.contains(&line), "{line}");
        }
        let (threads, planes) = (MOST_COLUMNS / 4, PARTS.iter().max().unwrap());
        let planes = format!("FOR_PLANES({threads}, {planes}, residual_norm_planes, T, NAME)");
        assert!(ENTRIES.contains(&planes), "{planes}");
    }

    #[test]
    fn sums_may_be_cut_and_rounded_results_may_not() {
        let room = 32 << 20;
        let down = shape(154, 5120, 1280, Kind::F32);
        assert_eq!(Tiles::all(&down, room).len(), 12);
        let up = shape(154, 1280, 5120, Kind::F16);
        let all = Tiles::all(&up, room);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|tiles| tiles.parts == 1));
        // Eight parts of twelve stages: the last two would have nothing to do.
        let out = Tiles::all(&shape(154, 768, 768, Kind::F32), room);
        assert!(out.iter().any(|tiles| tiles.parts == 6));
        assert!(out.iter().all(|tiles| tiles.parts != 8));
    }

    #[test]
    fn only_what_the_kernels_make_is_offered() {
        let room = 32 << 20;
        let good = shape(154, 1280, 1280, Kind::F32);
        let bad = [
            ProductShape { rows: 0, ..good },
            ProductShape {
                rows: MOST_ROWS + 1,
                ..good
            },
            ProductShape {
                inputs: 1290,
                ..good
            },
            ProductShape {
                outputs: 1290,
                ..good
            },
            ProductShape {
                kind: Kind::F32,
                ..good
            },
            ProductShape {
                kind: Kind::Bf16,
                result: Kind::F16,
                ..good
            },
        ];
        assert!(!Tiles::all(&good, room).is_empty());
        for shape in bad {
            assert_eq!(Tiles::all(&shape, room), [], "{shape:?}");
        }
        assert_eq!(Tiles::all(&good, 154 * 1280 * 4 - 1), []);
        let huge = shape(154, 64, usize::MAX / 64 * 64, Kind::F32);
        assert_eq!(Tiles::all(&huge, usize::MAX), []);
    }

    #[test]
    fn every_tile_has_a_block() {
        let shape = shape(154, 5120, 1280, Kind::F32);
        let tiles = Tiles {
            columns: 64,
            parts: 3,
        };
        let launch = tiles.launch(&shape).unwrap();
        assert_eq!((launch.blocks, launch.threads), ((20, 6), 128));
        assert_eq!(launch.shared, 4 * 80 * 72 * 4);
        assert_eq!(Tiles::shared(32), 4 * 14_336);
        // What every card with these tensor cores lets a block have.
        assert!(launch.shared < 99 << 10);
    }
}
