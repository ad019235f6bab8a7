//! What a run reads, and what is no file, is never replaced.

use std::fs;
use std::path::Path;

use sd_conditioner::weights::EncoderId;
use tempfile::tempdir;

use crate::files::write;
use crate::support::run;

fn checkpoint(folder: &Path) -> String {
    let (name, root) = ("tiny.safetensors", "cond_stage_model.transformer.");
    let path = write(folder, name, EncoderId::ClipL, root, &[]);
    path.to_str().unwrap().to_owned()
}

#[test]
fn weights_are_not_replaced_by_what_they_give() {
    let folder = tempdir().unwrap();
    let path = checkpoint(folder.path());
    let before = fs::read(&path).unwrap();
    let start = ["encode", "--family", "sd1", "--weights", &path];
    let one = ["--positive", "a cat", "--out", &path];
    let said = run(&[&start[..], &one].concat()).expect(1);
    assert!(said.stderr.contains("this run reads it"), "{}", said.stderr);

    let lines = folder.path().join("lines.jsonl");
    let text = "{\"id\":\"tiny\",\"positive\":\"a\"}\n{\"id\":\"b\",\"positive\":\"b\"}\n";
    fs::write(&lines, text).unwrap();
    let into = folder.path().to_str().unwrap();
    let many = ["--requests", lines.to_str().unwrap(), "--out-dir", into];
    for more in [&[][..], &["--resume"]] {
        let said = run(&[&start[..], &many, more].concat()).expect(1);
        assert!(said.stderr.contains("this run reads it"), "{}", said.stderr);
        assert!(folder.path().join("b.safetensors").exists());
    }
    assert!(fs::read(&path).unwrap() == before);
}

/// What was encoded into a folder of weights may be encoded again.
#[test]
fn an_own_file_in_a_folder_that_is_read_is_replaced() {
    let folder = tempdir().unwrap();
    let single = checkpoint(folder.path());
    let model = folder.path().join("model");
    let weights = model.to_str().unwrap();
    let layout = ["--layout", "diffusers"];
    run(&[&["convert", &single, weights][..], &layout].concat()).expect(0);
    let files = fs::read_dir(model.join("text_encoder")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let path = files.find(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let (out, path) = (model.join("pair.safetensors"), path.unwrap());
    for (out, code) in [(&out, 0), (&out, 0), (&path, 1)] {
        let target = ["--positive", "a cat", "--out", out.to_str().unwrap()];
        let start = ["encode", "--family", "sd1", "--weights", weights];
        run(&[&start[..], &target].concat()).expect(code);
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt as _;
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(at("id.safetensors")).unwrap();
    let socket = at("id.safetensors");
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let one = ["--positive", "a cat", "--out", socket.to_str().unwrap()];
    let said = run(&[&start[..], &one].concat()).expect(1);
    assert!(said.stderr.contains("no file"), "{}", said.stderr);
    let page = [
        "tokens",
        "--positive",
        "a",
        "--html",
        socket.to_str().unwrap(),
    ];
    run(&page).expect(1);
    fs::write(at("lines.jsonl"), "{\"id\":\"id\",\"positive\":\"a\"}\n").unwrap();
    let (lines, into) = (at("lines.jsonl"), folder.path().to_str().unwrap());
    let many = ["--requests", lines.to_str().unwrap(), "--out-dir", into];
    run(&[&start[..], &many].concat()).expect(1);
    assert!(
        fs::symlink_metadata(&socket)
            .unwrap()
            .file_type()
            .is_socket()
    );
}
