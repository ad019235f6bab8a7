//! `encode --requests` that is killed, doubled or robbed of its folder: a file that has its name is whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::command;

fn lines(count: usize) -> String {
    let line = |number: usize| {
        let text = if number % 5 == 4 { number - 2 } else { number };
        format!("{{\"id\":\"id{number}\",\"positive\":\"a cat {text}\"}}\n")
    };
    (0..count).map(line).collect()
}

/// A run whose lines come from a pipe or from `requests.jsonl`.
fn start(folder: &Path, from: &str) -> Child {
    start_with(folder, from, "sd1", &[])
}

fn start_with(folder: &Path, from: &str, family: &str, more: &[&str]) -> Child {
    let out = folder.join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", family];
    let target = ["--requests", from, "--out-dir", out.to_str().unwrap()];
    let mut command = command(&[&start[..], &target, more].concat());
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until a path is there, or for at least so many files.
fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder.join("out")).map_or(0, Iterator::count)
}

fn bytes_of_all(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = written(folder).into_iter();
    let names = names.filter(|name| !name.starts_with('.'));
    let read = |name: &String| fs::read(folder.join("out").join(name)).unwrap();
    names.map(|name| (name.clone(), read(&name))).collect()
}

#[test]
fn wherever_a_run_is_killed_its_files_are_whole_and_the_next_one_makes_the_rest() {
    killed_and_resumed("sd1", &[]);
    killed_and_resumed("sd2", &["--only", "positive"]);
    killed_and_resumed("sdxl", &["--format", "te-outputs"]);
    killed_and_resumed("sdxl", &["--format", "conditioning"]);
}

fn killed_and_resumed(family: &str, more: &[&str]) {
    let fresh = tempdir().unwrap();
    requests(fresh.path(), family, &lines(600), more).expect(0);
    let fresh = bytes_of_all(fresh.path());
    let folder = tempdir().unwrap();
    let file = folder.path().join("requests.jsonl");
    fs::write(&file, lines(600)).unwrap();
    let mut before = 0;
    for at_least in [2, 90, 200] {
        let from = file.to_str().unwrap();
        let mut child = start_with(folder.path(), from, family, more);
        wait_for("files", || {
            count(folder.path()) >= at_least || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let found = bytes_of_all(folder.path());
        let whole = |(name, bytes): (&String, &Vec<u8>)| fresh[name] == *bytes;
        assert!(found.iter().all(whole), "{more:?} after {at_least}");
        before = found.len();
    }
    let more = [more, &["--resume"]].concat();
    let ran = requests(folder.path(), family, &lines(600), &more).expect(0);
    let words = format!("{} written, 0 failed", 600 - before);
    assert!(ran.stderr.contains(&words), "{words}: {}", ran.stderr);
    assert!(bytes_of_all(folder.path()) == fresh, "{more:?}");
    assert_eq!(count(folder.path()), 600, "hidden files are left");
}

/// What a killed run had made and not yet brought to the disk does not count, whole or not.
#[test]
fn what_a_killed_run_had_not_finished_is_made_anew() {
    let folder = tempdir().unwrap();
    requests(folder.path(), "sd1", &lines(4), &[]).expect(0);
    let fresh = bytes_of_all(folder.path());
    let unfinished = folder.path().join("out/.embeddings.unfinished");
    fs::create_dir(&unfinished).unwrap();
    for (name, bytes) in &fresh {
        fs::remove_file(folder.path().join("out").join(name)).unwrap();
        fs::write(unfinished.join(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    let ran = requests(folder.path(), "sd1", &lines(4), &["--resume"]).expect(0);
    assert!(ran.stderr.contains("4 written, 0 failed"), "{}", ran.stderr);
    assert!(bytes_of_all(folder.path()) == fresh);
    assert!(!unfinished.exists());
}

#[test]
fn two_runs_of_the_same_lines_do_not_write_at_once() {
    let folder = tempdir().unwrap();
    let mut first = start(folder.path(), "-");
    let mut input = first.stdin.take().unwrap();
    writeln!(input, "{{\"id\":\"first\",\"positive\":\"a cat\"}}").unwrap();
    let answer = folder.path().join("out/first.safetensors");
    wait_for("an answer", || answer.exists());
    for more in [&[][..], &["--pack", "1MB"]] {
        let ran = requests(folder.path(), "sd1", &lines(2), more).expect(1);
        assert!(ran.error().contains("another run is writing there"));
        assert!(!ran.stderr.contains("mean nothing"), "{}", ran.stderr);
    }
    // Another share of the lines has no file in common.
    requests(folder.path(), "sd1", &lines(2), &["--shard", "1/2"]).expect(0);
    drop(input);
    assert!(first.wait().unwrap().success());
    requests(folder.path(), "sd1", &lines(2), &[]).expect(0);
}

#[test]
fn a_folder_that_is_gone_ends_the_run() {
    let folder = tempdir().unwrap();
    let mut child = start(folder.path(), "-");
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{{\"id\":\"first\",\"positive\":\"a cat\"}}").unwrap();
    let out = folder.path().join("out");
    wait_for("an answer", || out.join("first.safetensors").exists());
    fs::remove_dir_all(&out).unwrap();
    // One line, and nothing behind it: who waits for the answer waits for no error either.
    writeln!(input, "{{\"id\":\"second\",\"positive\":\"a dog\"}}").unwrap();
    wait_for("the end", || child.try_wait().unwrap().is_some());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("goes on with --resume"), "{said}");
}

#[test]
fn a_folder_in_the_requests_place_is_said_before_anything_is_loaded() {
    let folder = tempdir().unwrap();
    let ended = start(folder.path(), folder.path().to_str().unwrap());
    let ended = ended.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("a folder, and lines are to be read"),
        "{said}"
    );
    assert!(!said.contains("mean nothing"), "{said}");
}

#[test]
fn a_file_in_the_folders_place_is_said_before_anything_is_loaded() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("out"), b"no folder").unwrap();
    let ran = requests(folder.path(), "sd1", &lines(1), &[]).expect(1);
    assert!(ran.error().contains("out"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("mean nothing"), "{}", ran.stderr);
}

/// A shell that allows so much, and the command in it.
#[cfg(target_os = "linux")]
fn limited(folder: &Path, limit: &str, count: usize) -> std::process::Output {
    let file = folder.join("requests.jsonl");
    fs::write(&file, lines(count)).unwrap();
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let out = folder.join("out");
    let target = [
        "--requests",
        file.to_str().unwrap(),
        "--out-dir",
        out.to_str().unwrap(),
    ];
    let own = command(&[&start[..], &target[..]].concat());
    let mut shell = std::process::Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit {limit} && exec \"$0\" \"$@\""));
    shell.arg(own.get_program()).args(own.get_args());
    shell.envs(
        own.get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    shell.output().unwrap()
}

/// Files of a group are closed when no more can be opened, and no line pays for it.
#[cfg(target_os = "linux")]
#[test]
fn few_open_files_are_enough() {
    for limit in ["-n 128", "-n 24"] {
        let folder = tempdir().unwrap();
        let ended = limited(folder.path(), limit, 300);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("300 written, 0 failed"), "{limit}: {said}");
        assert_eq!(count(folder.path()), 300);
    }
}
