//! `list`, `pull`, and `--weights NAME`, offline.

use std::process::Stdio;

use sd_conditioner::hub::Catalog;

use crate::support::{command, run};

#[test]
fn list_shows_every_name() {
    let ran = run(&["list"]).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let entries = Catalog::published();
    assert_eq!(lines.len(), entries.entries().len() + 1);
    for (line, entry) in lines[1..].iter().zip(entries.entries()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [entry.name.as_str(), entry.family.name()]);
        assert_eq!(words.last(), Some(&"no"), "nothing is cached");
    }
}

#[test]
fn what_cannot_be_fetched_is_explained() {
    let ran = run(&["pull", "sdxl"]).expect(1);
    assert!(ran.error().contains("offline"));
    let ran = run(&["pull", "sdxxl"]).expect(1);
    assert!(
        ran.error().contains("sdxl-turbo"),
        "the known names are listed"
    );
    let encode = [
        "encode",
        "--positive",
        "a",
        "--out",
        "/tmp/never",
        "--weights",
    ];
    let ran = run(&[&encode[..], &["sd15"]].concat()).expect(1);
    assert!(ran.error().contains("offline"));
    let ran = run(&[&encode[..], &["model.safetensors"]].concat()).expect(1);
    assert!(ran.error().contains("no such file"), "{}", ran.stderr);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = command(&["list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
