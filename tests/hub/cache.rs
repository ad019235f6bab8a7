//! The cache alone, without any network.

use std::fs;
use std::path::{Path, PathBuf};

use sd_conditioner::ErrorKind;
use sd_conditioner::hub::{Catalog, Hub, HubOptions, Origin, RepoId};

use super::{
    COMMIT, CONTENT, FILE, assert_has, catalog, fetch, options, plain, refusal, sha256, tiny,
};

fn offline(cache: &Path) -> HubOptions {
    HubOptions {
        offline: true,
        ..options(cache)
    }
}

fn repository(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--{}", repo.replace('/', "--")))
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Puts the file into a cache as the hub's own tools do it, and returns its path under `snapshots/`.
fn put(cache: &Path, repo: &str, bytes: &[u8]) -> PathBuf {
    let folder = repository(cache, repo);
    write(&folder.join("refs/main"), COMMIT.as_bytes());
    let path = folder.join("snapshots").join(COMMIT).join(FILE);
    #[cfg(unix)]
    {
        let blob = sha256(bytes);
        write(&folder.join("blobs").join(&blob), bytes);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(format!("../../../blobs/{blob}"), &path).unwrap();
    }
    #[cfg(not(unix))]
    write(&path, bytes);
    path
}

fn from_cache(cache: &Path, catalog: Catalog, repo: &str, path: PathBuf) {
    let fetched = fetch(offline(cache), catalog).unwrap();
    assert_eq!(fetched.paths, [path]);
    assert_eq!(fetched.origins, [Origin::Cache(RepoId::new(repo).unwrap())]);
}

#[test]
fn a_cached_file_is_found_by_branch_and_by_commit() {
    let cache = tempfile::tempdir().unwrap();
    let path = put(cache.path(), "someone/tiny", CONTENT);
    from_cache(cache.path(), plain(), "someone/tiny", path.clone());
    let lines = format!("repo = \"someone/tiny\"\nrevision = \"{COMMIT}\"");
    from_cache(cache.path(), tiny(&lines), "someone/tiny", path.clone());
    fs::write(
        repository(cache.path(), "someone/tiny").join("refs/main"),
        format!("{COMMIT}\n"),
    )
    .unwrap();
    from_cache(cache.path(), plain(), "someone/tiny", path);
}

#[test]
fn a_cached_mirror_is_as_good() {
    let cache = tempfile::tempdir().unwrap();
    let path = put(cache.path(), "other/copy", CONTENT);
    let catalog = tiny("repo = \"someone/tiny\"\nmirrors = [{ repo = \"other/copy\" }]");
    from_cache(cache.path(), catalog, "other/copy", path);
}

#[cfg(unix)]
#[test]
fn the_same_bytes_are_found_under_another_commit_or_a_removed_repository() {
    let cache = tempfile::tempdir().unwrap();
    let path = put(cache.path(), "gone/tiny", CONTENT);
    let other = COMMIT.replace('0', "f");
    let pinned = format!("repo = \"gone/tiny\"\nrevision = \"{other}\"");
    from_cache(cache.path(), tiny(&pinned), "gone/tiny", path.clone());
    let former = "repo = \"someone/tiny\"\nformer = [\"gone/tiny\"]";
    from_cache(cache.path(), tiny(former), "gone/tiny", path);
    assert_has(
        &refusal(offline(cache.path()), catalog(former, "")),
        &["offline"],
    );
}

#[test]
fn offline_and_not_cached_says_everything_needed_to_fetch_it() {
    let cache = tempfile::tempdir().unwrap();
    let text = refusal(offline(cache.path()), plain());
    let place = cache.path().to_str().unwrap();
    assert_has(
        &text,
        &[
            "tiny",
            "offline",
            "someone/tiny",
            FILE,
            "main",
            place,
            "hf download someone/tiny",
        ],
    );
    let missing = refusal(offline(&cache.path().join("no-such-folder")), plain());
    assert_has(&missing, &["no-such-folder"]);
}

#[test]
fn without_a_cache_directory_nothing_can_be_done() {
    let error = fetch(HubOptions::default(), plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hub);
    assert_has(&error.to_string(), &["cache directory", "HF_HUB_CACHE"]);
}

#[test]
fn odd_references_are_named() {
    let long = "a".repeat(5000);
    for bytes in [
        &b""[..],
        b"\n",
        b"main",
        b"../../etc",
        b"\xff\xfe",
        long.as_bytes(),
        &COMMIT.as_bytes()[..39],
    ] {
        let cache = tempfile::tempdir().unwrap();
        put(cache.path(), "someone/tiny", CONTENT);
        let reference = repository(cache.path(), "someone/tiny").join("refs/main");
        fs::write(&reference, bytes).unwrap();
        // The same bytes would be found by their checksum.
        let text = refusal(
            offline(cache.path()),
            catalog("repo = \"someone/tiny\"", ""),
        );
        assert_has(&text, &[reference.to_str().unwrap(), "delete it"]);
    }
}

#[test]
fn a_reference_that_is_a_folder_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let reference = repository(cache.path(), "someone/tiny").join("refs/main");
    fs::create_dir_all(&reference).unwrap();
    assert_has(
        &refusal(offline(cache.path()), plain()),
        &[reference.to_str().unwrap()],
    );
}

/// Opening a pipe would wait for a writer that never comes.
#[cfg(unix)]
#[test]
fn a_reference_that_is_a_pipe_is_named() {
    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), "someone/tiny", CONTENT);
    let reference = repository(cache.path(), "someone/tiny").join("refs/main");
    fs::remove_file(&reference).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&reference)
        .status();
    assert!(made.unwrap().success());
    assert_has(
        &refusal(
            offline(cache.path()),
            catalog("repo = \"someone/tiny\"", ""),
        ),
        &[reference.to_str().unwrap(), "not a file"],
    );
}

#[cfg(unix)]
#[test]
fn dangling_and_circular_links_are_named() {
    let cache = tempfile::tempdir().unwrap();
    let path = put(cache.path(), "someone/tiny", CONTENT);
    fs::remove_file(fs::canonicalize(&path).unwrap()).unwrap();
    assert_has(
        &refusal(offline(cache.path()), plain()),
        &[path.to_str().unwrap(), "delete the link"],
    );
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert_has(
        &refusal(offline(cache.path()), plain()),
        &[path.to_str().unwrap(), "delete the link"],
    );
}

#[test]
fn a_folder_in_the_place_of_the_file_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let folder = repository(cache.path(), "someone/tiny");
    write(&folder.join("refs/main"), COMMIT.as_bytes());
    fs::create_dir_all(folder.join("snapshots").join(COMMIT).join(FILE)).unwrap();
    assert_has(&refusal(offline(cache.path()), plain()), &["is not a file"]);
}

#[test]
fn a_half_written_download_is_not_the_file() {
    let cache = tempfile::tempdir().unwrap();
    let folder = repository(cache.path(), "someone/tiny");
    write(&folder.join("refs/main"), COMMIT.as_bytes());
    let part = folder
        .join("blobs")
        .join(format!("{}.incomplete", sha256(CONTENT)));
    write(&part, CONTENT);
    assert_has(
        &refusal(offline(cache.path()), plain()),
        &[part.to_str().unwrap(), "not ended"],
    );
}

#[test]
fn a_remembered_absence_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let folder = repository(cache.path(), "someone/tiny");
    write(&folder.join("refs/main"), COMMIT.as_bytes());
    write(&folder.join(".no_exist").join(COMMIT).join(FILE), b"");
    assert_has(
        &refusal(offline(cache.path()), plain()),
        &["remembers", COMMIT],
    );
}

#[test]
fn a_cached_file_of_the_wrong_size_names_what_to_delete() {
    let cache = tempfile::tempdir().unwrap();
    let path = put(cache.path(), "someone/tiny", &CONTENT[..10]);
    let text = refusal(offline(cache.path()), plain());
    let blob = fs::canonicalize(&path).unwrap();
    let size = CONTENT.len().to_string();
    assert_has(
        &text,
        &[
            "incomplete",
            &size,
            "10",
            "delete",
            blob.to_str().unwrap(),
            path.to_str().unwrap(),
        ],
    );
    assert!(path.exists(), "what another tool wrote is left alone");
}

#[test]
fn a_cached_file_s_checksum_is_compared_when_asked() {
    let cache = tempfile::tempdir().unwrap();
    let wrong: Vec<u8> = CONTENT.iter().rev().copied().collect();
    let path = put(cache.path(), "someone/tiny", &wrong);
    assert_eq!(
        fetch(offline(cache.path()), plain()).unwrap().paths,
        std::slice::from_ref(&path)
    );
    let verify = HubOptions {
        verify: true,
        ..offline(cache.path())
    };
    let text = refusal(verify.clone(), plain());
    assert_has(
        &text,
        &[
            "sha256",
            &sha256(CONTENT),
            &sha256(&wrong),
            "delete",
            path.to_str().unwrap(),
        ],
    );

    let cache = tempfile::tempdir().unwrap();
    put(cache.path(), "someone/tiny", CONTENT);
    let mut seen = 0;
    let verify = HubOptions {
        cache_dir: Some(cache.path().to_owned()),
        ..verify
    };
    let fetched =
        Hub::with_catalog(verify, plain()).fetch("tiny", &mut |progress| seen = progress.done);
    assert!(fetched.is_ok());
    assert_eq!(seen, CONTENT.len() as u64);
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_only_the_cache_works() {
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(options(cache.path()), plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_has(
        &error.to_string(),
        &["feature `hub`", "someone/tiny", FILE, "hf download"],
    );
    put(cache.path(), "someone/tiny", CONTENT);
    assert!(fetch(options(cache.path()), plain()).is_ok());
}
