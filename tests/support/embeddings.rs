//! The textual-inversion files that the reference outputs were made with.

use std::path::Path;

use sd_conditioner::weights::Synthetic;

use super::entries::{Entry, Stored, save};

/// The seed of every reference output.
pub(crate) const SEED: u64 = 73;

/// Widths of the tiny L, H and G.
pub(crate) const WIDTHS: [usize; 3] = [128, 192, 256];

/// Key and shape of each tensor of a file.
type Tensors = &'static [(&'static str, [usize; 2])];

/// Files and what is in them.
pub(crate) const FILES: [(&str, Tensors); 5] = [
    ("synth-one", &[("emb_params", [1, WIDTHS[0]])]),
    ("synth-three", &[("emb_params", [3, WIDTHS[0]])]),
    ("synth-concept", &[("<synth-concept>", [1, WIDTHS[0]])]),
    ("synth-h-two", &[("emb_params", [2, WIDTHS[1]])]),
    (
        "synth-xl-two",
        &[("clip_l", [2, WIDTHS[0]]), ("clip_g", [2, WIDTHS[2]])],
    ),
];

/// What the tensor `key` of the file `stem` holds.
pub(crate) fn values(stem: &str, key: &str, shape: [usize; 2]) -> Vec<f32> {
    let name = format!("{stem}/{key}");
    Synthetic::plain(SEED, "embedding", &name, shape.iter().product(), 0.03)
}

/// One tensor of one of the files.
pub(crate) fn entry(stem: &str, key: &str, shape: [usize; 2], stored: Stored) -> Entry {
    let (stem, name) = (stem.to_owned(), key.to_owned());
    Entry::new(key, stored, &shape, move || values(&stem, &name, shape))
}

/// Writes all of them into a folder.
pub(crate) fn write(folder: &Path, stored: Stored) {
    for (stem, tensors) in FILES {
        let entries: Vec<Entry> = tensors
            .iter()
            .map(|(key, shape)| entry(stem, key, *shape, stored))
            .collect();
        save(&folder.join(format!("{stem}.safetensors")), &entries);
    }
}
