//! The textual-inversion files that the reference outputs were made with.

use std::path::Path;

use sd_conditioner::weights::Synthetic;

use super::entries::{Entry, Stored, save};
use super::pickles::{Object, dict, save_zip, text, view};

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

/// The pickled one, in A1111's form: two vectors of L.
pub(crate) const PICKLED: &str = "synth-old-two";

/// What A1111 saves of some vectors.
pub(crate) fn a1111(vectors: Object) -> Object {
    dict([
        ("string_to_token", dict([("*", Object::Int(265))])),
        ("string_to_param", dict([("*", vectors)])),
        ("name", text(PICKLED)),
        ("step", Object::Int(499)),
        ("sd_checkpoint", Object::None),
        ("sd_checkpoint_name", Object::None),
    ])
}

/// The pickled one's content.
pub(crate) fn pickled(stored: Stored) -> Object {
    let entry = entry(PICKLED, "*", [2, WIDTHS[0]], stored);
    a1111(Object::Tensor(view(0, &entry)))
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
    save_zip(&folder.join(format!("{PICKLED}.pt")), &pickled(stored));
}
