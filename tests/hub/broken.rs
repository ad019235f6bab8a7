//! Hubs that fail, lie, or fall silent.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use sd_conditioner::ErrorKind;
use sd_conditioner::hub::HubOptions;

use super::server::{Answer, Request, Server, online};
use super::{COMMIT, CONTENT, FILE, assert_has, fetch, options, plain, refusal, sha256, visible};

/// What fetching the plain entry is refused with, when the server answers so.
fn refused(answer: Answer) -> String {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(move |_| answer.clone());
    let text = refusal(online(cache.path(), &server), plain());
    assert_eq!(visible(cache.path()), [] as [PathBuf; 0], "after: {text}");
    text
}

#[test]
fn wrong_bytes_of_the_right_size_are_not_kept() {
    let wrong: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let text = refused(Answer::Bytes(wrong.clone()));
    assert_has(
        &text,
        &[
            "someone/tiny",
            "sha256",
            &sha256(CONTENT),
            &sha256(&wrong),
            "nothing of it was kept",
        ],
    );
}

#[test]
fn a_file_announced_with_another_size_is_not_begun() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Bytes(vec![0; 9]));
    let text = refusal(online(cache.path(), &server), plain());
    assert_has(&text, &["9 bytes instead of 41", "someone/tiny"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_truncated_transfer_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        if request.start == 0 {
            Answer::Truncated(25)
        } else {
            Answer::Good
        }
    });
    let text = refusal(online(cache.path(), &server), plain());
    assert_has(&text, &["broke", FILE, "goes on where it stopped"]);
    assert!(visible(cache.path()).is_empty());
    let fetched = fetch(online(cache.path(), &server), plain()).unwrap();
    assert_eq!(fs::read(&fetched.paths[0]).unwrap(), CONTENT);
    assert_eq!(server.requests().last().unwrap().start, 25);
}

#[test]
fn broken_transfers_are_retried_as_often_as_allowed() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        if request.start < 30 {
            Answer::Truncated(15)
        } else {
            Answer::Good
        }
    });
    let patient = HubOptions {
        retries: 2,
        ..online(cache.path(), &server)
    };
    assert_eq!(
        fs::read(&fetch(patient, plain()).unwrap().paths[0]).unwrap(),
        CONTENT
    );
}

#[test]
fn a_part_that_cannot_be_gone_on_with_is_deleted_and_begun_again() {
    for length in [CONTENT.len(), CONTENT.len() + 5] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(|_| Answer::Good);
        let blobs = cache
            .path()
            .join("models--someone--tiny/.sd-conditioner/models--someone--tiny/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(
            blobs.join(format!("{}.part", sha256(CONTENT))),
            vec![0; length],
        )
        .unwrap();
        let patient = HubOptions {
            retries: 1,
            ..online(cache.path(), &server)
        };
        assert_eq!(
            fs::read(&fetch(patient, plain()).unwrap().paths[0]).unwrap(),
            CONTENT,
            "{length}"
        );
    }
}

#[test]
fn every_status_is_told_apart() {
    for (status, words) in [
        (
            401,
            &[
                "missing, private, or removed",
                "401",
                "without a token",
                "HF_TOKEN",
                "no mirror",
            ][..],
        ),
        (
            403,
            &["missing, private, or removed", "403", "accept its licence"],
        ),
        (
            404,
            &["missing, private, or removed", "404", FILE, "revision main"],
        ),
        (429, &["too many requests", "429", "wait"]),
        (500, &["the hub failed", "500", "later"]),
        (502, &["the hub failed", "502"]),
        (503, &["the hub failed", "503"]),
        (400, &["400"]),
    ] {
        let text = refused(Answer::Status(status));
        assert_has(&text, words);
        assert_has(&text, &["someone/tiny"]);
    }
}

#[test]
fn a_slow_server_is_waited_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Drip);
    let short = HubOptions {
        timeout: Duration::from_millis(800),
        ..online(cache.path(), &server)
    };
    assert!(fetch(short, plain()).is_ok());
}

#[test]
fn a_server_that_says_nothing_more_is_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request: &Request| {
        if request.start == 0 {
            Answer::Stuck(25)
        } else {
            Answer::Good
        }
    });
    let short = HubOptions {
        timeout: Duration::from_millis(500),
        ..online(cache.path(), &server)
    };
    // The server holds back the rest until it is told.
    let text = refusal(short, plain());
    assert_has(&text, &["sent nothing for 0.5 s", FILE]);
    // The rest arrives now, and must not become a file behind the caller's back.
    server.let_go();
    std::thread::sleep(Duration::from_millis(500));
    assert!(visible(cache.path()).is_empty());
    let fetched = fetch(online(cache.path(), &server), plain()).unwrap();
    assert_eq!(fs::read(&fetched.paths[0]).unwrap(), CONTENT);
}

#[test]
fn a_listener_that_never_answers_is_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let short = HubOptions {
        endpoint,
        timeout: Duration::from_millis(300),
        ..options(cache.path())
    };
    assert_has(&refusal(short, plain()), &["sent nothing"]);
}

#[test]
fn a_refused_connection_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for endpoint in [format!("http://{address}"), format!("https://{address}")] {
        let text = refusal(
            HubOptions {
                endpoint: Some(endpoint),
                ..options(cache.path())
            },
            plain(),
        );
        assert_has(
            &text,
            &["could not be reached", "HF_ENDPOINT", "PROXY", "offline"],
        );
    }
}

#[test]
fn a_server_without_encryption_behind_https_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let endpoint = Some(server.endpoint().replace("http:", "https:"));
    assert_has(
        &refusal(
            HubOptions {
                endpoint,
                ..options(cache.path())
            },
            plain(),
        ),
        &["could not be reached"],
    );
}

#[test]
fn bad_endpoints_are_refused_before_anything_is_asked() {
    for endpoint in [
        "",
        "hub",
        "ftp://x",
        "http://",
        "https:///x",
        "http://a b",
        "http://a?b",
        "http://a\n",
        "file:///etc",
        "http://:80",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let text = refusal(
            HubOptions {
                endpoint: Some(endpoint.to_owned()),
                ..options(cache.path())
            },
            plain(),
        );
        assert_has(&text, &["is not the address of a hub", "HF_ENDPOINT"]);
        assert!(visible(cache.path()).is_empty());
    }
}

#[test]
fn an_answer_that_is_not_a_hub_s_is_told() {
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";
    assert_has(
        &refused(Answer::Raw(page.to_vec())),
        &["does not answer like a model hub", "login page"],
    );
    assert_has(
        &refused(Answer::Raw(b"garbage\r\n\r\n".to_vec())),
        &["could not be reached"],
    );
    assert_has(&refused(Answer::Raw(Vec::new())), &["could not be reached"]);
}

#[test]
fn hostile_etags_and_commits_never_become_paths() {
    let good = (sha256(CONTENT), COMMIT.to_owned());
    for (etag, commit) in [
        ("../../../../evil".to_owned(), good.1.clone()),
        ("..".to_owned(), good.1.clone()),
        ("a/b".to_owned(), good.1.clone()),
        (String::new(), good.1.clone()),
        (good.0.clone(), "../../../../evil".to_owned()),
        (good.0.clone(), "main".to_owned()),
        (good.0, COMMIT.to_uppercase()),
    ] {
        let text = refused(Answer::Names { etag, commit });
        assert_has(&text, &["announces", "nothing was downloaded"]);
    }
}

#[test]
fn a_panic_inside_the_download_is_an_error() {
    let head = format!(
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n"
    );
    assert_has(
        &refused(Answer::Raw(head.into_bytes())),
        &["broke down", "location header", "HF_ENDPOINT"],
    );
}

#[test]
fn a_lock_that_another_holds_is_waited_for_and_then_named() {
    let cache = tempfile::tempdir().unwrap();
    let path = cache
        .path()
        .join(".locks/models--someone--tiny/sd-conditioner.lock");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let held = File::create(&path).unwrap();
    held.lock().unwrap();
    let server = Server::start(|_| Answer::Good);
    let short = HubOptions {
        timeout: Duration::from_millis(300),
        ..online(cache.path(), &server)
    };
    assert_has(
        &refusal(short.clone(), plain()),
        &["another process", path.to_str().unwrap()],
    );
    assert!(server.requests().is_empty());
    drop(held);
    assert!(fetch(short, plain()).is_ok());
}

#[test]
fn a_cache_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, b"").unwrap();
    let server = Server::start(|_| Answer::Good);
    let error = fetch(online(&file, &server), plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.path().unwrap().starts_with(&file));
}
