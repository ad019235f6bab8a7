//! Downloads that the caller does not want any more.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_conditioner::hub::{Hub, HubOptions, Phase};
use sd_conditioner::{Conditioner, Error, ErrorKind};

use super::server::{Answer, Server, online};
use super::{CONTENT, catalog, fetch, plain, sha256, visible};

/// The error of a fetch that is stopped when `fits` is told, and how long it then took to end.
fn stopped_at(options: HubOptions, fits: impl Fn(Phase, u64) -> bool) -> (Error, Duration) {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let hub = Hub::with_catalog(options, plain()).stop_when(move || seen.load(Ordering::SeqCst));
    let mut begun = Instant::now();
    let error = hub.fetch("tiny", &mut |step| {
        assert!(!asked.load(Ordering::SeqCst), "told of {step:?}");
        if fits(step.phase, step.done) {
            begun = Instant::now();
            asked.store(true, Ordering::SeqCst);
        }
    });
    (error.unwrap_err(), begun.elapsed())
}

#[track_caller]
fn assert_stopped(cache: &Path, error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert!(!error.to_string().contains("delete"), "{error}");
    assert!(visible(cache).is_empty());
}

#[test]
fn a_download_goes_on_where_it_was_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| match request.start {
        0 => Answer::Drip,
        _ => Answer::Good,
    });
    let options = online(cache.path(), &server);
    let (error, _) = stopped_at(options.clone(), |phase, done| {
        phase == Phase::Downloading && done >= 8
    });
    assert_stopped(cache.path(), &error);
    let fetched = fetch(options, plain()).unwrap();
    assert_eq!(fs::read(&fetched.paths[0]).unwrap(), CONTENT);
    let start = server.requests().last().unwrap().start;
    assert!((8..CONTENT.len()).contains(&start), "{start}");
}

#[test]
fn a_silent_server_is_not_waited_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Stuck(12));
    let (error, took) = stopped_at(online(cache.path(), &server), |_, done| done == 12);
    assert_stopped(cache.path(), &error);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

/// All had arrived: nothing of it is asked for again.
#[test]
fn what_was_stopped_while_it_was_compared_is_compared_again() {
    let cache = tempfile::tempdir().unwrap();
    let content = Arc::new(vec![7; 3 << 20]);
    let file = format!(
        "bytes = {}\nsha256 = \"{}\"",
        content.len(),
        sha256(&content)
    );
    let large = || catalog("repo = \"someone/tiny\"", &file);
    let sent = Arc::clone(&content);
    let server = Server::start(move |_| Answer::File(Arc::clone(&sent)));
    let options = online(cache.path(), &server);
    let compares = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&compares);
    let hub = Hub::with_catalog(options.clone(), large());
    let hub = hub.stop_when(move || seen.load(Ordering::SeqCst));
    // A part of it is compared then, and the question in front of the next one is answered with yes.
    let error = hub.fetch("tiny", &mut |step| {
        compares.fetch_or(step.phase == Phase::Verifying, Ordering::SeqCst);
    });
    assert_stopped(cache.path(), &error.unwrap_err());
    let wanted = |server: &Server| {
        let requests = server.requests();
        requests.iter().filter(|one| !one.is_probe).count()
    };
    let before = wanted(&server);
    let fetched = fetch(options, large()).unwrap();
    assert!(fs::read(&fetched.paths[0]).unwrap() == *content);
    assert_eq!((before, wanted(&server)), (1, 1));
    let verify = HubOptions {
        verify: true,
        offline: true,
        ..online(cache.path(), &server)
    };
    let hub = Hub::with_catalog(verify, large()).stop_when(|| true);
    let error = hub.fetch("tiny", &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert!(!error.to_string().contains("delete"), "{error}");
}

#[test]
fn another_process_is_not_waited_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let folder = cache.path().join(".locks/models--someone--tiny");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("sd-conditioner.lock")).unwrap();
    lock.lock().unwrap();
    let begun = Instant::now();
    let hub = Hub::with_catalog(online(cache.path(), &server), plain());
    let late = move || begun.elapsed() > Duration::from_millis(300);
    let builder = Conditioner::builder().stop_when(late);
    let error = builder.from_hub(&hub, "tiny").unwrap_err();
    assert_stopped(cache.path(), &error);
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(server.requests().is_empty());
}
