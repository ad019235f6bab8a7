//! What a textual inversion holds.

use sd_conditioner::Family;
use sd_conditioner::weights::{Embedding, EncoderId};
use serde::Serialize;

use super::row;

/// The JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    path: String,
    name: &'a str,
    placeholder: Option<&'a str>,
    vectors: usize,
    widths: Vec<usize>,
    /// Encoders of the published sizes that it has vectors for.
    encoders: Vec<&'static str>,
    families: Vec<&'static str>,
    notes: &'a [String],
}

impl Shown<'_> {
    pub(super) fn of(path: String, embedding: &Embedding) -> Shown<'_> {
        Shown {
            path,
            name: embedding.name(),
            placeholder: embedding.placeholder(),
            vectors: embedding.n_vectors(),
            widths: embedding.widths(),
            encoders: EncoderId::ALL
                .into_iter()
                .filter(|encoder| fits(embedding, *encoder))
                .map(EncoderId::tag)
                .collect(),
            families: families(embedding),
            notes: embedding.notes(),
        }
    }
}

/// For people.
pub(super) fn lines(embedding: &Embedding) -> Vec<String> {
    let widths: Vec<String> = embedding.widths().iter().map(usize::to_string).collect();
    let families = families(embedding);
    let families = if families.is_empty() {
        "none that this version knows".to_owned()
    } else {
        families.join(" or ")
    };
    let mut lines = vec![
        row("what", "an embedding (textual inversion)"),
        row("family", &families),
        row("name", embedding.name()),
    ];
    lines.extend(embedding.placeholder().map(|token| row("token", token)));
    let vectors = format!(
        "{} of width {}",
        embedding.n_vectors(),
        widths.join(" and ")
    );
    lines.push(row("vectors", &vectors));
    lines.extend(embedding.notes().iter().map(|note| row("note", note)));
    lines
}

fn fits(embedding: &Embedding, encoder: EncoderId) -> bool {
    embedding.vectors(encoder, encoder.width()).is_some()
}

/// The families for all of whose encoders there are vectors.
fn families(embedding: &Embedding) -> Vec<&'static str> {
    let fitting = Family::ALL.into_iter().filter(|family| {
        let mut encoders = family.encoders().iter();
        encoders.all(|encoder| fits(embedding, *encoder))
    });
    fitting.map(Family::name).collect()
}
