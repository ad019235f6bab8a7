//! hf-hub 0.5.0 on a thread of its own.
//!
//! It has no timeouts, and it panics where a server answers oddly (a redirect without a location).
//! On another thread both become errors here: silence ends the wait, and a panic ends only the
//! thread. A thread that was given up stops at the next byte that reaches it, before it writes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, panic};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::failure::{Broken, sort};
use super::{Phase, Watch, writing};
use crate::error::Error;
use crate::hub::hub_error;
use crate::hub::names::{FileName, RepoId, Revision, is_commit, plain, shown};

/// Messages that may wait for a slow progress callback.
const IN_FLIGHT: usize = 64;

/// Between two questions whether to go on, while nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// What to bring.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    /// hf-hub's cache folder for this download.
    pub(super) staging: PathBuf,
    pub(super) repo: RepoId,
    pub(super) revision: Revision,
    pub(super) file: FileName,
    /// How long it should be, where that is known.
    pub(super) bytes: Option<u64>,
}

impl Job {
    /// Repository, file and revision, for messages.
    pub(super) fn what(&self) -> String {
        format!(
            "{} in {} at revision {}",
            self.file, self.repo, self.revision
        )
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(
            self.repo.to_string(),
            RepoType::Model,
            self.revision.to_string(),
        )
    }
}

/// What was brought, not yet compared with anything.
#[derive(Debug)]
pub(super) struct Arrived {
    /// The file, in the staging folder.
    pub(super) blob: PathBuf,
    /// What the hub calls its content.
    pub(super) etag: String,
    /// The commit that the revision stands for.
    pub(super) commit: String,
    /// How long the hub says it is.
    pub(super) bytes: u64,
}

enum Message {
    Total(u64),
    Advanced(u64),
    Ended(Result<Arrived, Broken>),
}

/// Brings one file, and waits at most `patience` for each sign of life. What has arrived stays where it is when
/// the caller wants no more.
pub(super) fn run(job: &Job, patience: Duration, watch: &mut Watch<'_>) -> Result<Arrived, Broken> {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    let worker = begun(job, sender)?;
    let (mut done, mut total) = (0, job.bytes);
    let mut alive = Instant::now();
    loop {
        watch.stop.check().map_err(Broken::Failed)?;
        match receiver.recv_timeout(TICK.min(patience)) {
            Ok(Message::Ended(result)) => return result,
            Ok(Message::Total(bytes)) => (done, total) = (0, Some(bytes)),
            Ok(Message::Advanced(bytes)) => done += bytes,
            Err(RecvTimeoutError::Timeout) if alive.elapsed() < patience => continue,
            Err(RecvTimeoutError::Timeout) => return Err(Broken::Failed(silent(job, patience))),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Broken::Failed(panicked(job, worker.join())));
            }
        }
        alive = Instant::now();
        let told = watch.tell(Phase::Downloading, &job.file, done, total);
        told.map_err(Broken::Failed)?;
    }
}

/// The thread of a transfer. It has the only sender, so that its end is seen.
fn begun(job: &Job, sender: SyncSender<Message>) -> Result<JoinHandle<()>, Broken> {
    let own = job.clone();
    let worker = thread::Builder::new()
        .name("hub download".to_owned())
        .spawn(move || {
            let result = transfer(&own, &sender);
            let _ = sender.send(Message::Ended(result));
        });
    worker.map_err(|error| Broken::Failed(writing(&job.staging, error)))
}

fn transfer(job: &Job, sender: &SyncSender<Message>) -> Result<Arrived, Broken> {
    let api = api(job).map_err(|error| sort(job, error))?;
    let (etag, commit, bytes) = announced(job, &api)?;
    let download = || {
        let reporter = Reporter {
            sender: sender.clone(),
        };
        let repo = api.repo(job.repo());
        let path = repo.download_with_progress(job.file.as_str(), reporter);
        path.map_err(|error| sort(job, error))
    };
    let path = arrived_before(job, &etag, bytes).map_or_else(download, Ok)?;
    let blob = inside(job, &path, &etag)?;
    Ok(Arrived {
        blob,
        etag,
        commit,
        bytes,
    })
}

fn api(job: &Job) -> Result<Api, ApiError> {
    ApiBuilder::from_cache(Cache::new(job.staging.clone()))
        .with_endpoint(job.endpoint.clone())
        .with_token(job.token.clone())
        .with_progress(false)
        .with_retries(0)
        .build()
}

/// Etag, commit and size, checked before hf-hub makes paths of the first two.
fn announced(job: &Job, api: &Api) -> Result<(String, String, u64), Broken> {
    let url = api.repo(job.repo()).url(job.file.as_str());
    let metadata = api.metadata(&url).map_err(|error| sort(job, error))?;
    let (etag, commit) = (
        metadata.etag().to_owned(),
        metadata.commit_hash().to_owned(),
    );
    if !plain(&etag) || etag.contains("..") || etag.starts_with('.') || etag.len() > 128 {
        return Err(odd(job, &format!("the etag `{}`", shown(&etag))));
    }
    let other = job.revision.is_commit() && job.revision.as_str() != commit;
    if !is_commit(&commit) || other {
        return Err(odd(job, &format!("the commit `{}`", shown(&commit))));
    }
    let bytes = metadata.size() as u64;
    match job.bytes {
        Some(wanted) if wanted != bytes => {
            Err(odd(job, &format!("{bytes} bytes instead of {wanted}")))
        }
        Some(_) | None => Ok((etag, commit, bytes)),
    }
}

/// The whole file, where an earlier call brought it and was stopped before it was compared.
fn arrived_before(job: &Job, etag: &str, bytes: u64) -> Option<PathBuf> {
    let blob = Cache::new(job.staging.clone())
        .repo(job.repo())
        .blob_path(etag);
    let is_whole = fs::metadata(&blob).is_ok_and(|found| found.is_file() && found.len() == bytes);
    is_whole.then_some(blob)
}

/// Where the file lies, which must be inside the staging folder.
fn inside(job: &Job, path: &Path, etag: &str) -> Result<PathBuf, Broken> {
    let real =
        |path: &Path| fs::canonicalize(path).map_err(|error| Broken::Failed(writing(path, error)));
    let blob = real(path)?;
    let named = blob.ends_with(etag) || blob.ends_with(job.file.as_str());
    if named && blob.starts_with(real(&job.staging)?) {
        Ok(blob)
    } else {
        Err(odd(job, "another name for the file than before"))
    }
}

fn odd(job: &Job, what: &str) -> Broken {
    Broken::Failed(
        hub_error(format!("the hub announces {what} for {}", job.what())).hint(
            "nothing was downloaded; the file may have been replaced, or this is not a model hub",
        ),
    )
}

fn silent(job: &Job, patience: Duration) -> Error {
    hub_error(format!(
        "{} sent nothing for {} s, so {} was given up",
        job.endpoint,
        patience.as_secs_f32(),
        job.what()
    ))
    .hint("fetch again: it goes on where it stopped; a slow connection needs a longer timeout")
}

fn panicked(job: &Job, end: thread::Result<()>) -> Error {
    let text = match end {
        Ok(()) => "it ended without a word".to_owned(),
        Err(cause) => cause
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| cause.downcast_ref::<&str>().copied())
            .map_or_else(|| "no message".to_owned(), shown),
    };
    hub_error(format!(
        "the download of {} broke down on an answer of the server: {text}",
        job.what()
    ))
    .hint("check the address of the hub (HF_ENDPOINT)")
}

/// Passes hf-hub's progress on, and stops hf-hub when nobody listens any more.
struct Reporter {
    sender: SyncSender<Message>,
}

impl Reporter {
    fn send(&self, message: Message) {
        if self.sender.send(message).is_err() {
            stop();
        }
    }
}

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _file: &str) {
        self.send(Message::Total(size as u64));
    }

    fn update(&mut self, size: usize) {
        self.send(Message::Advanced(size as u64));
    }

    fn finish(&mut self) {}
}

/// Ends this thread: hf-hub offers no other way out of a transfer. Unwinding this way calls no panic
/// hook, so nothing is printed; where panics abort the process, the thread sleeps instead.
fn stop() -> ! {
    if cfg!(panic = "unwind") {
        panic::resume_unwind(Box::new("given up"));
    }
    loop {
        thread::park();
    }
}
