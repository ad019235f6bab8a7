//! Bare names, matched as ids (`EmbeddingDatabase.find_embedding_at_position`).

use std::ops::Range;

use crate::tokens::{Known, TokenId};

use super::Build;

/// What is called by a name, the name's ids, and by what it is found.
struct Name {
    ids: Vec<TokenId>,
    called: String,
    key: String,
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
    mut here: impl Iterator<Item = &'a Name>,
    span: &Range<usize>,
) -> Option<usize> {
    let mut unfit = None;
    while let Some(name) = here.next() {
        match build.lexicon.find(&name.key) {
            Known::Fit { vectors, first_id } => {
                build.vectors(&name.key, 0..vectors, (vectors, first_id, true));
                let files = alike(build, name, here);
                build.chosen(&name.called, &files, span);
                return Some(name.ids.len());
            }
            Known::Unfit { why, .. } => {
                unfit.get_or_insert((name, why));
            }
            Known::No => {}
        }
    }
    if let Some((name, why)) = unfit {
        build.stays_text(&name.key, &why, span.clone());
    }
    None
}

/// The name that is taken and those of `others` that are called the same and fit, too.
fn alike<'a>(
    build: &Build<'_>,
    taken: &'a Name,
    others: impl Iterator<Item = &'a Name>,
) -> Vec<String> {
    let fits = |name: &&Name| matches!(build.lexicon.find(&name.key), Known::Fit { .. });
    let others = others.filter(|name| name.called == taken.called && name.key != taken.key);
    let all = [taken].into_iter().chain(others.filter(fits));
    all.map(|name| name.key.clone()).collect()
}

/// All names as ids, longest first. The tool forgets what does not fit the model when it loads it;
/// here that is asked for only when a name occurs.
fn names(build: &Build<'_>) -> Vec<Name> {
    let called = build.lexicon.called().into_iter();
    let names = called.map(|(called, key)| Name {
        ids: build.encode(&called),
        called,
        key,
    });
    let mut names: Vec<Name> = names.filter(|name| !name.ids.is_empty()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.ids.len()));
    names
}
