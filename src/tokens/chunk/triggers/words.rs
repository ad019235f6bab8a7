//! Names found as text: diffusers' tokens, `InvokeAI`'s `<name>`, stable-diffusion.cpp's bare names.

use std::ops::Range;

use crate::tokens::Known;

use super::{Build, Trigger};

/// An occurrence of a name.
struct Found {
    at: Range<usize>,
    name: String,
    /// Whether it is spelt exactly as the name.
    exact: bool,
}

pub(super) fn place(build: &mut Build<'_>, text: &str, span: Range<usize>) {
    build.begin(span.clone());
    let mut from = 0;
    for found in occurrences(build, text) {
        let (vectors, first_id) = match build.lexicon.find(&found.name) {
            Known::Fit { vectors, first_id } => (vectors, first_id),
            Known::Unfit { why, .. } if build.rule.trigger == Trigger::Anywhere => {
                let ids = build.encode(&text[from..found.at.start]);
                build.ids(&ids);
                from = found.at.end;
                let bare = build.tokenizer.id_of(&found.name.to_ascii_lowercase());
                let id = bare.unwrap_or_default();
                build.becomes(&found.name, id, &why, place_in(&span, text, &found.at));
                continue;
            }
            Known::Unfit { why, .. } => {
                build.stays_text(&found.name, &why, place_in(&span, text, &found.at));
                continue;
            }
            Known::No => continue,
        };
        let ids = build.encode(&text[from..found.at.start]);
        build.ids(&ids);
        // transformers 5 finds an added token in any case, but diffusers expands `tok` to
        // `tok tok_1 …` in this case only. compel's manager of embeddings expands ids.
        let only_first = build.rule.trigger == Trigger::Token && !found.exact;
        let n_vectors = if only_first { 1 } else { vectors };
        build.vectors(&found.name, 0..n_vectors, (vectors, first_id, true));
        from = found.at.end;
    }
    let ids = build.encode(&text[from..]);
    build.ids(&ids);
}

/// Where a part of a text stands in the source, or the whole text where signs were taken out of it.
fn place_in(span: &Range<usize>, text: &str, part: &Range<usize>) -> Range<usize> {
    if span.len() == text.len() {
        span.start + part.start..span.start + part.end
    } else {
        span.clone()
    }
}

/// From left to right; where several begin, the longest, but in stable-diffusion.cpp the first in the order of their bytes
/// (`split_with_special_tokens` in `src/tokenizers/tokenize_util.cpp`).
fn occurrences(build: &Build<'_>, text: &str) -> Vec<Found> {
    let spelt = spellings(build);
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let here = spelt
            .iter()
            .filter_map(|spelt| found_at(at, text, spelt, build.rule.trigger));
        let next = match build.rule.trigger {
            Trigger::Anywhere => here.min_by(|one, other| one.name.cmp(&other.name)),
            _ => here.max_by_key(|found| found.at.end),
        };
        match next {
            Some(next) => {
                at = next.at.end;
                found.push(next);
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    found
}

/// How each name is spelt in a text, and the name. `InvokeAI` calls a file by its own name, and looks for names of
/// these signs only (`extract_ti_triggers_from_prompt` in `invokeai/app/util/ti_utils.py`).
fn spellings(build: &Build<'_>) -> Vec<(String, String)> {
    if build.rule.trigger != Trigger::Angled {
        let names = build.lexicon.names().into_iter();
        return names.map(|name| (name.clone(), name)).collect();
    }
    let is_sign = |byte| matches!(byte, b'.' | b',' | b' ' | b'_' | b'-');
    let is_found = |called: &str| {
        let mut bytes = called.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte))
    };
    let called = build.lexicon.called().into_iter();
    let found = called.filter(|(called, _)| is_found(called));
    found
        .map(|(called, name)| (format!("<{called}>"), name))
        .collect()
}

/// The name, if it is what begins at this place.
fn found_at(
    at: usize,
    text: &str,
    (spelling, name): &(String, String),
    trigger: Trigger,
) -> Option<Found> {
    let end = at.checked_add(spelling.len())?;
    let part = text.get(at..end).filter(|part| !part.is_empty())?;
    let same = part == spelling;
    let fits = same || trigger != Trigger::Angled && part.eq_ignore_ascii_case(spelling);
    fits.then(|| Found {
        at: at..end,
        name: name.clone(),
        exact: same,
    })
}
