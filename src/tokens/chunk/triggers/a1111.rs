//! Bare names, matched as ids (`EmbeddingDatabase.find_embedding_at_position`).

use std::ops::Range;

use crate::tokens::{Known, TokenId};

use super::Build;

/// A name, and the ids of how it is called.
struct Name {
    ids: Vec<TokenId>,
    name: String,
}

pub(super) fn place(build: &mut Build<'_>, text: &str, span: Range<usize>) {
    build.begin(span.clone());
    let names = names(build);
    let ids = build.encode(text);
    let mut at = 0;
    while at < ids.len() {
        let here = names.iter().filter(|name| ids[at..].starts_with(&name.ids));
        if let Some(length) = embedding(build, here, &span) {
            at += length;
        } else {
            build.ids(&ids[at..=at]);
            at += 1;
        }
    }
}

/// Adds the longest embedding that fits of those whose names stand here, and tells how many ids its
/// name has. Where none fits, the longest is noted.
fn embedding<'a>(
    build: &mut Build<'_>,
    here: impl Iterator<Item = &'a Name>,
    span: &Range<usize>,
) -> Option<usize> {
    let mut unfit = None;
    for name in here {
        match build.lexicon.find(&name.name) {
            Known::Fit { vectors, first_id } => {
                build.vectors(&name.name, 0..vectors, (vectors, first_id, true));
                return Some(name.ids.len());
            }
            Known::Unfit { why, .. } => {
                unfit.get_or_insert((name, why));
            }
            Known::No => {}
        }
    }
    if let Some((name, why)) = unfit {
        build.stays_text(&name.name, &why, span.clone());
    }
    None
}

/// All names as ids, longest first. The tool forgets what does not fit the model when it loads it;
/// here that is asked for only when a name occurs.
fn names(build: &Build<'_>) -> Vec<Name> {
    let called = build.lexicon.called().into_iter();
    let names = called.map(|(called, name)| Name {
        ids: build.encode(&called),
        name,
    });
    let mut names: Vec<Name> = names.filter(|name| !name.ids.is_empty()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.ids.len()));
    names
}
