//! What one forward uploads: ids, ends and hidden keys, one after the other.

use std::ops::Range;

use super::{WINDOW, input_parts};
use crate::kernels::Batch;

/// An id that says: the row's vector is in its place already (`KEPT_ROW` in `common.cu`).
const KEPT_ROW: u32 = u32::MAX;

/// Fills `words` for `size` windows of which the first are `windows` of the batch; the others are
/// nobody's. `kept` are rows whose vectors are given, counted from the first of `windows`.
pub(crate) fn write_input(
    words: &mut [u32],
    batch: &Batch<'_>,
    windows: &Range<usize>,
    size: usize,
    kept: impl Iterator<Item = usize>,
) {
    words.fill(0);
    let rows = WINDOW * windows.start..WINDOW * windows.end;
    let [ends, hidden_keys] = input_parts(size);
    words[..rows.len()].copy_from_slice(&batch.ids[rows.clone()]);
    for row in kept {
        words[row] = KEPT_ROW;
    }
    words[ends..ends + windows.len()].copy_from_slice(&batch.ends[windows.clone()]);
    if let Some(keys) = &batch.hidden_keys {
        let to = &mut words[hidden_keys..hidden_keys + rows.len()];
        for (word, key) in to.iter_mut().zip(&keys[rows]) {
            *word = key.to_bits();
        }
    }
}

/// Whether a batch is whole and all of its ids are rows of the table.
pub(crate) fn is_sound(batch: &Batch<'_>, vocabulary: usize) -> bool {
    let rows = batch.ends.len() * WINDOW;
    let keys = batch.hidden_keys.as_ref().map_or(rows, Vec::len);
    !batch.ends.is_empty()
        && batch.ids.len() == rows
        && keys == rows
        && batch.ends.iter().all(|end| (*end as usize) < WINDOW)
        && batch
            .ids
            .iter()
            .all(|id| (*id as usize) < vocabulary && *id != KEPT_ROW)
        && batch.vectors.iter().all(|(row, _)| *row < rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plan::input_words;

    fn batch(windows: u32) -> Batch<'static> {
        Batch {
            ids: (0..windows * 77).collect(),
            vectors: Vec::new(),
            hidden_keys: Some((0..windows * 77).map(|row| row as f32).collect()),
            ends: (0..windows).map(|window| 70 + window).collect(),
            layer: 1,
            final_norm: false,
            pooled: None,
        }
    }

    #[test]
    fn the_parts_lie_where_the_kernels_read_them() {
        let mut words = vec![9; input_words(4)];
        write_input(&mut words, &batch(5), &(1..4), 4, [0, 5].into_iter());
        assert_eq!(words[..7], [KEPT_ROW, 78, 79, 80, 81, KEPT_ROW, 83]);
        assert_eq!(words[230..232], [307, 0], "the fourth window is nobody's");
        assert_eq!(words[308..312], [71, 72, 73, 0]);
        assert_eq!(words[312], 77.0_f32.to_bits());
        assert_eq!(words[542..544], [307.0_f32.to_bits(), 0]);
        let common = include_str!("../cuda/common.cu");
        assert!(common.contains("constexpr unsigned KEPT_ROW = ~0u;"));
    }

    #[test]
    fn without_hidden_keys_all_are_seen() {
        let mut words = vec![9; input_words(1)];
        let batch = Batch {
            hidden_keys: None,
            ..batch(1)
        };
        write_input(&mut words, &batch, &(0..1), 1, std::iter::empty());
        assert!(words[78..].iter().all(|word| *word == 0));
    }

    #[test]
    fn what_a_kernel_would_read_beyond_a_buffer_is_unsound() {
        assert!(is_sound(&batch(2), 154));
        assert!(!is_sound(&batch(2), 153), "an id beyond the table");
        let long = |change: fn(&mut Batch<'_>)| {
            let mut batch = batch(2);
            change(&mut batch);
            is_sound(&batch, 1000)
        };
        assert!(!long(|batch| batch.ends[0] = 77));
        assert!(!long(|batch| batch.ids.truncate(77)));
        assert!(!long(|batch| batch.hidden_keys = Some(vec![0.0])));
        assert!(!long(|batch| batch.ends.clear()));
    }
}
