//! Matrices of f64 without any cleverness: the twin that formulas are held against.

use sd_conditioner::candle_core::Tensor;

use crate::support::close::values;

#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) cells: Vec<f64>,
}

impl Plain {
    pub(super) fn new(rows: usize, columns: usize, cells: impl IntoIterator<Item = f64>) -> Plain {
        let cells: Vec<f64> = cells.into_iter().collect();
        assert_eq!(cells.len(), rows * columns);
        Plain {
            rows,
            columns,
            cells,
        }
    }

    /// The values that [`super::entry`] stores under a name.
    pub(super) fn stored(name: &str, rows: usize, columns: usize, scale: f64) -> Plain {
        let cells = super::values(name, rows * columns, scale);
        Plain::new(rows, columns, cells.into_iter().map(f64::from))
    }

    /// Of a matrix, or a vector as one column.
    pub(super) fn of(tensor: &Tensor) -> Plain {
        let dims = tensor.dims();
        Plain::new(dims[0], dims.get(1).copied().unwrap_or(1), values(tensor))
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.cells[row * self.columns + column]
    }

    /// Every cell anew.
    pub(super) fn map(&self, cell: impl Fn(usize, usize, f64) -> f64) -> Plain {
        let cells = self.cells.iter().enumerate();
        let cells = cells.map(|(at, value)| cell(at / self.columns, at % self.columns, *value));
        Plain::new(self.rows, self.columns, cells)
    }

    pub(super) fn times(&self, other: &Plain) -> Plain {
        assert_eq!(self.columns, other.rows);
        let cell = |at: usize| {
            let (row, column) = (at / other.columns, at % other.columns);
            let products = (0..self.columns).map(|k| self.at(row, k) * other.at(k, column));
            products.sum::<f64>()
        };
        let cells = (0..self.rows * other.columns).map(cell);
        Plain::new(self.rows, other.columns, cells)
    }

    pub(super) fn plus(&self, other: &Plain) -> Plain {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns));
        self.map(|row, column, value| value + other.at(row, column))
    }

    pub(super) fn scaled(&self, factor: f64) -> Plain {
        self.map(|_, _, value| value * factor)
    }

    pub(super) fn transposed(&self) -> Plain {
        let cells = (0..self.rows * self.columns).map(|at| self.at(at % self.rows, at / self.rows));
        Plain::new(self.columns, self.rows, cells)
    }

    /// `[row·p + k, column·q + l] = self[row, column] · other[k, l]`
    pub(super) fn kron(&self, other: &Plain) -> Plain {
        let (rows, columns) = (self.rows * other.rows, self.columns * other.columns);
        let cell = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            self.at(row / other.rows, column / other.columns)
                * other.at(row % other.rows, column % other.columns)
        };
        Plain::new(rows, columns, (0..rows * columns).map(cell))
    }

    /// Lengths of the rows.
    pub(super) fn norms(&self) -> Vec<f64> {
        let rows = self.cells.chunks(self.columns);
        rows.map(|row| row.iter().map(|cell| cell * cell).sum::<f64>().sqrt())
            .collect()
    }

    /// The inverse by the series of Neumann, for matrices near 1: I + (I − M) + (I − M)² + …
    pub(super) fn inverse_near_one(&self) -> Plain {
        let one = self.map(|row, column, _| f64::from(u8::from(row == column)));
        let rest = one.plus(&self.scaled(-1.0));
        let (mut sum, mut power) = (one.clone(), one);
        for _ in 0..200 {
            power = power.times(&rest);
            sum = sum.plus(&power);
        }
        sum
    }

    /// Fails where `other` is farther than `bar` times this one's largest value.
    #[track_caller]
    pub(super) fn assert_near(&self, what: &str, other: &Plain, bar: f64) {
        assert_eq!(
            (self.rows, self.columns),
            (other.rows, other.columns),
            "{what}"
        );
        let largest = self
            .cells
            .iter()
            .fold(0.0_f64, |most, cell| most.max(cell.abs()));
        let pairs = self.cells.iter().zip(&other.cells);
        let worst = pairs.fold(0.0_f64, |most, (one, two)| most.max((one - two).abs()));
        let relative = worst / largest;
        assert!(
            relative <= bar,
            "{what}: relative error {relative:e}, allowed {bar:e}"
        );
    }
}
