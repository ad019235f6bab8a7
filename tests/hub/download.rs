//! Downloads from a hub on the loopback address: the layout, mirrors, tokens, redirects.

use std::fs;
use std::path::{Path, PathBuf};

use sd_conditioner::hub::{Catalog, Hub, HubOptions, Origin, Phase, RepoId};

use super::server::{Answer, Request, Server, online};
use super::{
    COMMIT, CONTENT, FILE, assert_has, catalog, fetch, plain, refusal, sha256, tiny, visible,
};

/// Where the played file lies in a cache.
fn snapshot(cache: &Path, repo: &str) -> PathBuf {
    let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
    folder.join("snapshots").join(COMMIT).join(FILE)
}

#[test]
fn a_good_file_arrives_whole_and_in_the_shared_layout() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let mut told = Vec::new();
    let hub = Hub::with_catalog(online(cache.path(), &server), plain());
    let fetched = hub
        .fetch("tiny", &mut |step| {
            told.push((step.phase, step.done, step.total));
        })
        .unwrap();
    let path = snapshot(cache.path(), "someone/tiny");
    assert_eq!(fetched.paths, std::slice::from_ref(&path));
    assert_eq!(
        fetched.origins,
        [Origin::Repository(RepoId::new("someone/tiny").unwrap())]
    );
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    let folder = cache.path().join("models--someone--tiny");
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    assert!(!folder.join(".sd-conditioner").exists());
    #[cfg(unix)]
    {
        let link = format!("../../../blobs/{}", sha256(CONTENT));
        assert_eq!(fs::read_link(&path).unwrap(), Path::new(&link));
    }
    let all = CONTENT.len() as u64;
    assert!(
        told.contains(&(Phase::Downloading, all, Some(all))),
        "{told:?}"
    );
    assert_eq!(told.last(), Some(&(Phase::Verifying, all, Some(all))));
    assert!(server.requests().iter().all(|request| {
        request.path == format!("/someone/tiny/resolve/main/{FILE}") && request.token.is_none()
    }));
}

#[test]
fn a_second_call_asks_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let first = fetch(online(cache.path(), &server), plain()).unwrap();
    let asked = server.requests().len();
    let second = fetch(online(cache.path(), &server), plain()).unwrap();
    assert_eq!(server.requests().len(), asked);
    assert_eq!(first.paths, second.paths);
    assert_eq!(
        second.origins,
        [Origin::Cache(RepoId::new("someone/tiny").unwrap())]
    );
    let offline = HubOptions {
        offline: true,
        ..online(cache.path(), &server)
    };
    assert_eq!(fetch(offline, plain()).unwrap().paths, first.paths);
    assert_eq!(server.requests().len(), asked);
}

#[test]
fn offline_asks_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    refusal(
        HubOptions {
            offline: true,
            ..online(cache.path(), &server)
        },
        plain(),
    );
    assert!(server.requests().is_empty());
}

#[test]
fn a_commit_is_asked_for_and_leaves_no_reference() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let pinned = || tiny(&format!("repo = \"someone/tiny\"\nrevision = \"{COMMIT}\""));
    fetch(online(cache.path(), &server), pinned()).unwrap();
    assert!(server.requests()[0].path.contains(COMMIT));
    assert!(!cache.path().join("models--someone--tiny/refs").exists());
    fetch(
        HubOptions {
            offline: true,
            ..online(cache.path(), &server)
        },
        pinned(),
    )
    .unwrap();
}

#[test]
fn without_a_catalogued_checksum_the_hub_s_own_is_compared() {
    let loose = || catalog("repo = \"someone/tiny\"", "");
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    fetch(online(cache.path(), &server), loose()).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let wrong: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let server = Server::start(move |_| Answer::Bytes(wrong.clone()));
    assert_has(
        &refusal(online(cache.path(), &server), loose()),
        &["sha256", "nothing of it was kept"],
    );
    assert!(visible(cache.path()).is_empty());
}

fn mirrored() -> Catalog {
    tiny(
        "repo = \"someone/tiny\"\nnotes = \"Removed in May.\"\nmirrors = [{ repo = \"gone/too\" }, { repo = \"other/copy\" }]",
    )
}

#[test]
fn a_removed_repository_falls_to_its_mirror() {
    for status in [401, 403, 404] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |request: &Request| {
            if request.path.starts_with("/other/copy/") {
                Answer::Good
            } else {
                Answer::Status(status)
            }
        });
        let fetched = fetch(online(cache.path(), &server), mirrored()).unwrap();
        assert_eq!(
            fetched.origins,
            [Origin::Mirror(RepoId::new("other/copy").unwrap())]
        );
        assert_eq!(fetched.paths, [snapshot(cache.path(), "other/copy")]);
        assert!(!cache.path().join("models--someone--tiny").exists());
        let asked = server.requests().len();
        fetch(online(cache.path(), &server), mirrored()).unwrap();
        assert_eq!(
            server.requests().len(),
            asked,
            "the mirror's copy is in the cache"
        );
    }
}

#[test]
fn when_all_mirrors_are_gone_all_are_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Status(401));
    let text = refusal(online(cache.path(), &server), mirrored());
    assert_has(
        &text,
        &[
            "missing, private, or removed",
            "someone/tiny",
            "gone/too",
            "other/copy",
            "Removed in May.",
        ],
    );
}

#[test]
fn a_failing_server_does_not_send_to_the_mirror() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request: &Request| {
        Answer::Status(if request.path.starts_with("/someone/") {
            404
        } else {
            500
        })
    });
    let text = refusal(online(cache.path(), &server), mirrored());
    assert_has(&text, &["500", "gone/too", "before it", "someone/tiny"]);
    assert!(!text.contains("other/copy"), "{text}");
}

#[test]
fn the_token_is_sent_as_a_bearer() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request: &Request| {
        if request.token.as_deref() == Some("hf_secret") {
            Answer::Good
        } else {
            Answer::Status(401)
        }
    });
    assert_has(
        &refusal(online(cache.path(), &server), plain()),
        &["without a token"],
    );
    let wrong = HubOptions {
        token: Some("hf_wrong".to_owned()),
        ..online(cache.path(), &server)
    };
    let text = refusal(wrong, plain());
    assert!(
        text.contains("with a token") && !text.contains("hf_wrong"),
        "{text}"
    );
    let right = HubOptions {
        token: Some("hf_secret\n".to_owned()),
        ..online(cache.path(), &server)
    };
    assert!(fetch(right, plain()).is_ok());
}

#[test]
fn public_files_are_fetched_without_the_token() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let token = Some("hf_secret".to_owned());
    fetch(
        HubOptions {
            token,
            ..online(cache.path(), &server)
        },
        plain(),
    )
    .unwrap();
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.token.is_none())
    );
}

#[test]
fn too_many_requests_are_asked_again_with_the_token() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|request: &Request| match request.token {
        Some(_) => Answer::Good,
        None => Answer::Status(429),
    });
    let token = Some("hf_secret".to_owned());
    assert!(
        fetch(
            HubOptions {
                token,
                ..online(cache.path(), &server)
            },
            plain()
        )
        .is_ok()
    );
}

#[test]
fn redirects_to_another_server_and_to_a_new_name_are_followed() {
    let store = Server::start(|_| Answer::Good);
    let elsewhere = format!("{}/a-store", store.endpoint());
    for (to, wanted) in [
        (elsewhere.as_str(), 2),
        ("/someone/renamed/resolve/main/file", 0),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let target = to.to_owned();
        let server = Server::start(move |request: &Request| {
            if request.path.contains("renamed") {
                Answer::Good
            } else {
                Answer::Redirect(target.clone())
            }
        });
        let before = store.requests().len();
        let fetched = fetch(online(cache.path(), &server), plain()).unwrap();
        assert_eq!(fs::read(&fetched.paths[0]).unwrap(), CONTENT);
        assert!(store.requests().len() >= before + wanted);
    }
}

#[test]
fn a_token_that_cannot_be_sent_is_refused_and_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    for token in ["hf_a b", "hf_a\r\nX: y", "hf_ä"] {
        let text = refusal(
            HubOptions {
                token: Some(token.to_owned()),
                ..online(cache.path(), &server)
            },
            plain(),
        );
        assert!(text.contains("token") && !text.contains(token), "{text}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn two_files_of_one_entry_come_in_order() {
    let text = format!(
        "[[checkpoint]]\nname = \"tiny\"\nfamily = \"sdxl\"\nrepo = \"someone/tiny\"\nfiles = [\n\
         {{ encoders = [\"clip_l\"], path = \"one\", sha256 = \"{0}\" }},\n\
         {{ encoders = [\"clip_g\"], path = \"b/two\", sha256 = \"{0}\" }},\n]\n",
        sha256(CONTENT)
    );
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Answer::Good);
    let fetched = fetch(
        online(cache.path(), &server),
        Catalog::parse(&text).unwrap(),
    )
    .unwrap();
    assert!(
        fetched.paths[0].ends_with("one") && fetched.paths[1].ends_with("b/two"),
        "{:?}",
        fetched.paths
    );
    assert!(
        fetched
            .paths
            .iter()
            .all(|path| fs::read(path).unwrap() == CONTENT)
    );
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let path = snapshot(cache.path(), "someone/tiny");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("../nowhere", &path).unwrap();
    let server = Server::start(|_| Answer::Good);
    let fetched = fetch(online(cache.path(), &server), plain()).unwrap();
    assert_eq!(fs::read(&fetched.paths[0]).unwrap(), CONTENT);
}
