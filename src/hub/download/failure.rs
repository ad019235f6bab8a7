//! What went wrong in hf-hub, in the words of this crate.

use hf_hub::api::sync::ApiError;

use super::transfer::Job;
use super::writing;
use crate::error::Error;
use crate::hub::hub_error;

/// How a transfer broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// Missing, private, or removed: a mirror may have it.
    Gone(Error),
    /// Too many requests: a token may help.
    Crowded(Error),
    /// It may work the next time; what has arrived is kept for that.
    Transient(Error),
    /// It will not work the next time either.
    Failed(Error),
    /// What had arrived before is of no use; it may work once that is deleted.
    Stale(Error),
}

/// Sorts an error of hf-hub.
pub(super) fn sort(job: &Job, error: ApiError) -> Broken {
    match error {
        ApiError::IoError(error) if is_disk(&error) => Broken::Failed(writing(&job.staging, error)),
        ApiError::IoError(error) => {
            let text = error.to_string();
            Broken::Transient(broke(job, &text).because(error))
        }
        ApiError::RequestError(error) => {
            let text = error.to_string();
            match status(&text) {
                Some(code) => refused(job, code),
                None => Broken::Transient(unreachable(job, &text).because(error)),
            }
        }
        ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_) => {
            Broken::Failed(no_hub(job, &error.to_string()))
        }
        ApiError::InvalidResume => Broken::Stale(too_long(job)),
        ApiError::TooManyRetries(inner) => sort(job, *inner),
        ApiError::LockAcquisition(path) => Broken::Failed(held(job).at_path(path)),
    }
}

/// The status in the text of the HTTP client's error (`http status: 404`, `ureq::Error`), which is
/// not among hf-hub's own types. A test asks for every status that matters here.
fn status(text: &str) -> Option<u16> {
    text.strip_prefix("http status: ")?.trim().parse().ok()
}

fn refused(job: &Job, code: u16) -> Broken {
    let what = job.what();
    match code {
        401 | 403 | 404 => Broken::Gone(not_given(job, code)),
        416 => Broken::Stale(
            hub_error(format!(
                "the server has no more bytes of {what} to add to an earlier download (status 416)"
            ))
            .hint("the earlier part was deleted; fetch again"),
        ),
        429 => Broken::Crowded(
            hub_error(format!(
                "the hub says there were too many requests (status 429) for {what}"
            ))
            .hint("wait some minutes; a token (HF_TOKEN) raises the limit"),
        ),
        500..=599 => Broken::Transient(
            hub_error(format!("the hub failed (status {code}) at {what}"))
                .hint("this is on the server's side; try again later"),
        ),
        _ => Broken::Failed(hub_error(format!(
            "the hub answered with status {code} for {what}"
        ))),
    }
}

fn not_given(job: &Job, code: u16) -> Error {
    let what = job.what();
    let token = if job.token.is_some() {
        ", with a token"
    } else {
        ", without a token"
    };
    hub_error(format!(
        "{what} is missing, private, or removed (status {code}{token})"
    ))
    .hint("if it is gated, accept its licence on its page and pass a token (HF_TOKEN)")
}

fn too_long(job: &Job) -> Error {
    hub_error(format!(
        "an earlier, broken download of {} was longer than the file",
        job.what()
    ))
    .hint("it was deleted; fetch again")
}

fn held(job: &Job) -> Error {
    hub_error(format!("another download of {} holds the lock", job.what()))
        .hint("wait for it and try again")
}

fn unreachable(job: &Job, text: &str) -> Error {
    hub_error(format!("the hub at {} could not be reached for {}: {text}", job.endpoint, job.what()))
        .hint("check the connection, the address (HF_ENDPOINT) and the proxy (HTTPS_PROXY), or work offline from the cache")
}

fn broke(job: &Job, text: &str) -> Error {
    hub_error(format!("the transfer of {} broke: {text}", job.what()))
        .hint("fetch again: it goes on where it stopped")
}

fn no_hub(job: &Job, text: &str) -> Error {
    hub_error(format!(
        "{} does not answer like a model hub: {text}",
        job.endpoint
    ))
    .hint("a login page, a proxy or a wrong address (HF_ENDPOINT) may have answered instead")
}

fn is_disk(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        AlreadyExists, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        error.kind(),
        AlreadyExists
            | NotADirectory
            | NotFound
            | PermissionDenied
            | QuotaExceeded
            | ReadOnlyFilesystem
            | StorageFull
    )
}
