//! What is said where a file cannot be had.

use std::path::Path;

use super::{EncoderFile, Entry, hub_error};
use crate::error::Error;

pub(super) fn offline(
    root: &Path,
    entry: &Entry,
    file: &EncoderFile,
    odd: Option<String>,
) -> Error {
    let Entry {
        name,
        repo,
        revision,
        ..
    } = entry;
    let odd = odd.map(|odd| format!("; {odd}")).unwrap_or_default();
    let path = &file.path;
    hub_error(format!(
        "`{name}` is not in the cache, and the hub is not asked because it is set offline: \
         repository {repo}, file {path}, revision {revision}, cache directory {}{odd}",
        root.display()
    ))
    .hint(format!(
        "fetch it once with a connection (HF_HUB_OFFLINE unset), or copy the cache from a machine \
         that has one: hf download {repo} {path} --revision {revision}"
    ))
}

/// The last error, with the repositories that were gone before it.
pub(super) fn after(gone: &[Error], error: Error) -> Error {
    if gone.is_empty() {
        return error;
    }
    let before: Vec<String> = gone
        .iter()
        .map(|error| error.message().to_owned())
        .collect();
    let mut told = Error::new(
        error.kind(),
        format!("{}; before it: {}", error.message(), before.join("; ")),
    );
    if let Some(path) = error.path() {
        told = told.at_path(path);
    }
    if let Some(hint) = error.hint_text() {
        told = told.hint(hint);
    }
    told.because(error)
}

pub(super) fn all_gone(entry: &Entry, mut gone: Vec<Error>) -> Error {
    let tried: Vec<String> = gone
        .iter()
        .map(|error| error.message().to_owned())
        .collect();
    let mirrors = mirrors_asked(entry);
    let notes = entry
        .notes
        .as_deref()
        .map(|notes| format!(" {notes}"))
        .unwrap_or_default();
    let error = hub_error(format!("`{}`: {}; {mirrors}", entry.name, tried.join("; ")));
    let error = match gone.pop() {
        Some(last) => error.because(last),
        None => error,
    };
    error.hint(format!(
        "if the repository is gated, accept its licence on its page and pass a token (HF_TOKEN); \
         otherwise fetch the file elsewhere and open it by path.{notes}"
    ))
}

fn mirrors_asked(entry: &Entry) -> String {
    let mirrors = entry.mirrors.iter().map(|mirror| mirror.repo.as_str());
    let mirrors: Vec<&str> = mirrors.collect();
    if mirrors.is_empty() {
        return "no mirror is known".to_owned();
    }
    format!("its mirrors were asked too: {}", mirrors.join(", "))
}
