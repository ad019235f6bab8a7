//! A MATRIX'S BYTES → ITS TRANSPOSE'S. Some files keep projections the other way round.

use safetensors::Dtype;

use super::stored::Stored;

/// Values on a side of the square that is turned at once: its rows and columns fit the first cache.
const TILE: usize = 32;

/// The bytes of the transpose of a matrix with so many columns; `None` for types that are not plain
/// values of 16 or 32 bits.
pub(crate) fn turned(bytes: &[u8], stored: Stored, columns: usize) -> Option<Vec<u8>> {
    match stored {
        Stored::Plain(Dtype::F16 | Dtype::BF16) => Some(turn::<2>(bytes, columns)),
        Stored::Plain(Dtype::F32) => Some(turn::<4>(bytes, columns)),
        _ => None,
    }
}

fn turn<const SIZE: usize>(bytes: &[u8], columns: usize) -> Vec<u8> {
    let values = bytes.as_chunks::<SIZE>().0;
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let mut turned = vec![[0; SIZE]; rows * columns];
    for first in (0..rows).step_by(TILE) {
        let rows_here = first..rows.min(first + TILE);
        for left in (0..columns).step_by(TILE) {
            for column in left..columns.min(left + TILE) {
                for row in rows_here.clone() {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned.into_flattened()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn it_is_what_candle_makes() {
        for (rows, columns) in [(1, 1), (3, 70), (64, 32), (33, 65)] {
            let n_values = u32::try_from(rows * columns).unwrap();
            let matrix = Tensor::arange(0, n_values, &Device::Cpu).unwrap();
            let matrix = matrix.reshape((rows, columns)).unwrap();
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
            let want = values(&matrix.t().unwrap().contiguous().unwrap());
            for size in [2, 4] {
                let bytes = |values: &[u32]| -> Vec<u8> {
                    let each = values.iter().map(|value| value.to_le_bytes());
                    each.flat_map(|bytes| bytes[..size].to_vec()).collect()
                };
                let stored = if size == 2 { Dtype::F16 } else { Dtype::F32 };
                let turned = turned(&bytes(&values(&matrix)), Stored::Plain(stored), columns);
                assert_eq!(turned.unwrap(), bytes(&want), "{rows} × {columns}, {size}");
            }
        }
    }

    #[test]
    fn nothing_is_turned_that_is_not_there() {
        let stored = Stored::Plain(Dtype::F32);
        assert_eq!(turned(&[], stored, 0), Some(vec![]));
        assert_eq!(turned(&[], Stored::Plain(Dtype::F64), 1), None);
    }
}
