//! The layout of activations: for each window a panel `[features, 80]`, one column for each of the 77
//! rows of the window and three of padding. Tokens lie beside each other, so that every operation of
//! a layer works on as many tokens at once as a vector has places, no matrix is ever rearranged, and
//! what a product makes is what the next one takes.

/// Rows of a window.
pub(super) const ROWS: usize = 77;

/// Columns of a panel.
pub(super) const COLUMNS: usize = 80;

/// `[77, features]` → a panel, the padding zero.
pub(super) fn from_rows(rows: &[f32], features: usize, panel: &mut [f32]) {
    panel.fill(0.0);
    for (column, row) in rows.chunks_exact(features).enumerate() {
        for (value, line) in row.iter().zip(panel.chunks_exact_mut(COLUMNS)) {
            line[column] = *value;
        }
    }
}

/// A panel → `[77, features]`.
pub(super) fn to_rows(panel: &[f32], features: usize, rows: &mut [f32]) {
    for (feature, line) in panel.chunks_exact(COLUMNS).enumerate() {
        for (value, row) in line.iter().zip(rows.chunks_exact_mut(features)) {
            row[feature] = *value;
        }
    }
}
