//! Paths at which something else is than should be, and configurations that cannot be read.

use std::fs;
use std::path::Path;

use sd_conditioner::ErrorKind;
use sd_conditioner::weights::EncoderId;

use super::{check_refused, load};
use crate::support::checkpoints::{config, save_text, text_encoder};
use crate::support::entries::Stored;

/// A folder of one encoder.
fn encoder(folder: &Path) {
    text_encoder(folder, EncoderId::ClipL, Stored::F16, 1);
}

#[test]
fn paths_that_cannot_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.safetensors");
    fs::write(&file, "x").unwrap();
    let below = file.join("model.safetensors");
    check_refused(load(&below), ErrorKind::Io, &["file.safetensors"]);
    let long = folder.path().join("x".repeat(5000));
    check_refused(load(&long), ErrorKind::Io, &["xxxx"]);
    check_refused(load(Path::new("a\0b")), ErrorKind::Io, &[]);
    check_refused(load(Path::new("")), ErrorKind::Io, &[]);
}

/// No file may be read by this user. Root may read all, and then sees what the file is.
#[cfg(unix)]
#[test]
fn files_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locked.safetensors");
    fs::write(&path, "not weights, but locked").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    let kind = match fs::File::open(&path) {
        Ok(_) => ErrorKind::FileFormat,
        Err(_) => ErrorKind::Io,
    };
    check_refused(load(&path), kind, &["locked.safetensors"]);
}

/// Opening a pipe would wait for a writer that never comes.
#[cfg(unix)]
#[test]
fn pipes_and_sockets_are_not_opened() {
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [&pipe, &socket] {
        check_refused(load(path), ErrorKind::FileFormat, &["not a file", "pipe"]);
    }
    encoder(folder.path());
    for name in ["config.json", "model.safetensors"] {
        let path = folder.path().join(name);
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::rename(&pipe, &path).unwrap();
        check_refused(
            load(folder.path()),
            ErrorKind::FileFormat,
            &[name, "not a file"],
        );
        fs::rename(&path, &pipe).unwrap();
        fs::rename(folder.path().join("old"), &path).unwrap();
    }
    load(folder.path()).unwrap();
}

/// A folder where a file should be.
#[test]
fn folders_in_the_place_of_files() {
    for name in ["config.json", "model.safetensors", "model_index.json"] {
        let folder = tempfile::tempdir().unwrap();
        encoder(folder.path());
        let path = folder.path().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        check_refused(
            load(folder.path()),
            ErrorKind::FileFormat,
            &[name, "not a file"],
        );
    }
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gone.safetensors");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &path).unwrap();
    check_refused(load(&path), ErrorKind::Io, &["gone.safetensors"]);
}

/// What was meant to be there is not taken for absent: another file would be loaded, or less checked.
#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_in_folders() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let nowhere = folder.path().join("nowhere");
    let weights = folder.path().join("model.safetensors");
    fs::rename(&weights, folder.path().join("model.fp16.safetensors")).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    load(folder.path()).unwrap();
    for name in ["model.safetensors", "config.json", "model_index.json"] {
        let path = folder.path().join(name);
        let _ = fs::rename(&path, folder.path().join("old"));
        symlink(&nowhere, &path).unwrap();
        check_refused(
            load(folder.path()),
            ErrorKind::Io,
            &[name, "a link to", "nowhere", "delete the link"],
        );
        fs::remove_file(&path).unwrap();
        let _ = fs::rename(folder.path().join("old"), &path);
    }
    load(folder.path()).unwrap();
}

#[test]
fn configurations_that_cannot_be_read() {
    let check = |text: &[u8], kind: ErrorKind, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        encoder(folder.path());
        fs::write(folder.path().join("config.json"), text).unwrap();
        check_refused(load(folder.path()), kind, &["config.json"]);
        check_refused(load(folder.path()), kind, words);
    };
    let broken = ErrorKind::FileFormat;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let whole = config(EncoderId::ClipL).to_string();
    check(b"", broken, &["cannot be read"]);
    check(b"{\"hidden_size\":", broken, &["cannot be read"]);
    check(
        &whole.as_bytes()[..whole.len() - 1],
        broken,
        &["cannot be read"],
    );
    check(b"<!DOCTYPE html>", broken, &["cannot be read"]);
    check(b"\xff\xfe{}", broken, &["cannot be read"]);
    check(deep.as_bytes(), broken, &["recursion"]);
    check(b"[1]", broken, &["configuration"]);
    check(b"7", broken, &["configuration"]);
    check(b"{\"hidden_size\": -1}", broken, &["configuration", "-1"]);
    check(
        b"{\"text_config\": {\"hidden_size\": 1.5}}",
        broken,
        &["1.5"],
    );
    check(b"{\"layer_norm_eps\": 1e999}", broken, &["config.json"]);
    check(&vec![b' '; (1 << 20) + 1], broken, &["1048577 bytes"]);
}

#[test]
fn pipelines_whose_index_cannot_be_read() {
    let check = |text: &[u8], kind: ErrorKind, words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        save_text(&folder.path().join("text_encoder/config.json"), "{}");
        fs::write(folder.path().join("model_index.json"), text).unwrap();
        check_refused(load(folder.path()), kind, words);
    };
    let broken = ErrorKind::FileFormat;
    check(b"", broken, &["model_index.json", "cannot be read"]);
    check(b"[]", broken, &["not an object"]);
    check(b"null", broken, &["not an object"]);
    check(b"{\"text_encoder\": \"x\"}", broken, &["text_encoder"]);
    check(b"{\"text_encoder\": [1, 2, 3]}", broken, &["text_encoder"]);
    check(b"{}", ErrorKind::UnknownLayout, &["no text encoder"]);
}
