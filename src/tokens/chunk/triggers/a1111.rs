//! Bare names, matched as ids (`EmbeddingDatabase.find_embedding_at_position`).

use std::ops::Range;

use crate::tokens::{Known, TokenId};

use super::Build;

/// A name and its ids.
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
        let found = names.iter().find(|name| ids[at..].starts_with(&name.ids));
        match found.map(|name| (name, build.lexicon.find(&name.name))) {
            Some((name, Known::Fit { vectors, first_id })) => {
                build.vectors(&name.name, 0..vectors, (vectors, first_id, true));
                at += name.ids.len();
                continue;
            }
            Some((name, Known::Unfit { why, .. })) => {
                build.stays_text(&name.name, &why, span.clone());
            }
            Some((_, Known::No)) | None => {}
        }
        build.ids(&ids[at..=at]);
        at += 1;
    }
}

/// All names as ids, longest first. The tool leaves out what does not fit the model; here that is
/// asked for only when a name occurs.
fn names(build: &Build<'_>) -> Vec<Name> {
    let names = build.lexicon.names().into_iter().map(|name| Name {
        ids: build.encode(&name),
        name,
    });
    let mut names: Vec<Name> = names.filter(|name| !name.ids.is_empty()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.ids.len()));
    names
}
