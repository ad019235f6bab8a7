//! Folders of embeddings: names, order, laziness, and what stays outside.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::{EmbeddingFolder, EncoderId};

use super::check_refused;
use crate::support::embeddings::write;
use crate::support::entries::{Entry, Stored, save};

/// A file with as many vectors as told.
fn put(folder: &Path, name: &str, n_vectors: usize) {
    let entry = Entry::filled("emb_params", Stored::F32, &[n_vectors, 128], 0.5);
    save(&folder.join(name), &[entry]);
}

#[track_caller]
fn check(folder: &EmbeddingFolder, name: &str, n_vectors: Option<usize>) {
    let found = folder.get(name).unwrap();
    assert_eq!(found.map(|one| one.n_vectors()), n_vectors, "{name}");
}

#[test]
fn the_references_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Stored::F32);
    let index = EmbeddingFolder::open(folder.path()).unwrap();
    let names: Vec<_> = index.names().collect();
    let want = [
        "synth-concept",
        "synth-h-two",
        "synth-old-two",
        "synth-one",
        "synth-three",
        "synth-xl-two",
    ];
    assert_eq!((names.as_slice(), index.path()), (&want[..], folder.path()));
    let pair = index.get("synth-xl-two").unwrap().unwrap();
    assert_eq!(
        pair.vectors(EncoderId::OpenClipG, 256).unwrap().dims(),
        [2, 256]
    );
}

#[test]
fn names_with_folders_and_extensions() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    put(top, "one.safetensors", 1);
    put(top, "v1.5 style.safetensors", 2);
    put(top, "sdxl/deep/two.safetensors", 3);
    put(top, "sdxl/one.SAFETENSORS", 4);
    fs::write(top.join("one.preview.png"), "x").unwrap();
    fs::write(top.join("readme.md"), "x").unwrap();
    fs::write(top.join(".safetensors"), "x").unwrap();
    let index = EmbeddingFolder::open(top).unwrap();
    let names: Vec<_> = index.names().collect();
    assert_eq!(names, ["one", "sdxl/deep/two", "sdxl/one", "v1.5 style"]);
    check(&index, "one", Some(1));
    check(&index, "one.safetensors", Some(1));
    check(&index, "v1.5 style", Some(2));
    check(&index, "sdxl/deep/two", Some(3));
    check(&index, "sdxl//./deep/../deep/two", Some(3));
    check(&index, "sdxl/one", Some(4));
    for absent in [
        "two",
        "ONE",
        "one.preview",
        "readme.md",
        "sdxl",
        "",
        ".",
        "v1.5",
    ] {
        check(&index, absent, None);
    }
}

#[test]
fn safetensors_go_before_pickles() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.bin", "a.pt", "b.bin", "b.pt"] {
        fs::write(folder.path().join(name), b"\x80\x02}q\0.").unwrap();
    }
    put(folder.path(), "a.safetensors", 2);
    let index = EmbeddingFolder::open(folder.path()).unwrap();
    assert_eq!(index.names().collect::<Vec<_>>(), ["a", "b"]);
    check(&index, "a", Some(2));
    check_refused(
        index.get("a.pt"),
        ErrorKind::Unsupported,
        &["a.pt", "pickle"],
    );
    check_refused(index.get("b"), ErrorKind::Unsupported, &["b.pt"]);
    check_refused(index.get("b.bin"), ErrorKind::Unsupported, &["b.bin"]);
}

#[test]
fn names_stay_inside() {
    let outer = tempfile::tempdir().unwrap();
    put(outer.path(), "secret.safetensors", 1);
    let folder = outer.path().join("embeddings");
    put(&folder, "a/one.safetensors", 1);
    let index = EmbeddingFolder::open(&folder).unwrap();
    let absolute = outer.path().join("secret");
    for name in [
        "../secret",
        "a/../../secret",
        "./../secret",
        absolute.to_str().unwrap(),
    ] {
        check(&index, name, None);
    }
}

#[test]
fn listed_once_and_read_once() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "one.safetensors", 1);
    let index = EmbeddingFolder::open(folder.path()).unwrap();
    put(folder.path(), "late.safetensors", 1);
    check(&index, "late", None);
    put(folder.path(), "one.safetensors", 5);
    check(&index, "one", Some(5));
    put(folder.path(), "one.safetensors", 7);
    check(&index, "one", Some(5));
    let (one, again) = (
        index.get("one").unwrap().unwrap(),
        index.get("one").unwrap().unwrap(),
    );
    assert!(Arc::ptr_eq(&one, &again));
}

#[test]
fn broken_files_cost_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "good.safetensors", 1);
    put(folder.path(), "gone.safetensors", 1);
    fs::write(folder.path().join("bad.safetensors"), "no weights at all").unwrap();
    let index = EmbeddingFolder::open(folder.path()).unwrap();
    fs::remove_file(folder.path().join("gone.safetensors")).unwrap();
    for _ in 0..2 {
        check_refused(
            index.get("bad"),
            ErrorKind::FileFormat,
            &["bad.safetensors"],
        );
        check_refused(index.get("gone"), ErrorKind::Io, &["gone.safetensors"]);
        check(&index, "good", Some(1));
    }
    put(folder.path(), "bad.safetensors", 3);
    check(&index, "bad", Some(3));
}

#[test]
fn threads_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), Stored::F16);
    let index = EmbeddingFolder::open(folder.path()).unwrap();
    let read = || {
        let names = index.names();
        names
            .map(|name| index.get(name).unwrap().unwrap())
            .collect::<Vec<_>>()
    };
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    for one in &all {
        assert!(one.iter().zip(&all[0]).all(|(a, b)| Arc::ptr_eq(a, b)));
    }
}

#[test]
fn folders_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let missing = EmbeddingFolder::open(folder.path().join("none"));
    check_refused(missing, ErrorKind::Io, &["none"]);
    put(folder.path(), "one.safetensors", 1);
    let file = EmbeddingFolder::open(folder.path().join("one.safetensors"));
    check_refused(file, ErrorKind::Embedding, &["not a folder"]);
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    put(top, "a/one.safetensors", 1);
    symlink(top, top.join("a/up")).unwrap();
    symlink(top.join("nowhere"), top.join("broken.safetensors")).unwrap();
    symlink(
        top.join("a/one.safetensors"),
        top.join("linked.safetensors"),
    )
    .unwrap();
    let index = EmbeddingFolder::open(top).unwrap();
    assert_eq!(index.names().collect::<Vec<_>>(), ["a/one", "linked"]);
    check(&index, "linked", Some(1));
}

/// A link to what the folder lies in holds everything there is.
#[cfg(unix)]
#[test]
fn links_upwards_are_not_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (top, beside) = (folder.path().join("top"), folder.path().join("beside"));
    put(&top, "a/one.safetensors", 1);
    put(&beside, "two.safetensors", 2);
    symlink("/", top.join("root")).unwrap();
    symlink(folder.path(), top.join("up")).unwrap();
    symlink(&beside, top.join("shared")).unwrap();
    let index = EmbeddingFolder::open(&top).unwrap();
    // Many keep their files in one place and link to it.
    assert_eq!(index.names().collect::<Vec<_>>(), ["a/one", "shared/two"]);
}
