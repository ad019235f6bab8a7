//! `encode --requests`: good and bad lines.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::support::{Ran, command, encode, read, run, run_with_input};

pub(crate) fn requests(folder: &Path, family: &str, lines: &str, more: &[&str]) -> Ran {
    let file = folder.join("requests.jsonl");
    std::fs::write(&file, lines).unwrap();
    let out = folder.join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", family];
    let target = [
        "--requests",
        file.to_str().unwrap(),
        "--out-dir",
        out.to_str().unwrap(),
    ];
    run(&[&start[..], &target[..], more].concat())
}

pub(crate) fn written(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("out")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn good_lines_are_the_same_as_single_commands() {
    let folder = tempdir().unwrap();
    let lines = concat!(
        r#"{"id":"one","positive":"a cat","positive_2":"b","negative":null,"profile":"a1111","#,
        r#""clip_skip":3,"width":1216,"height":832,"crop_left":8,"crop_top":16,"#,
        r#""target_width":640,"target_height":480}"#,
        "\n\n",
        r#"{"id":"two","positive":"a dog","negative":"fog","negative_2":"rain"}"#,
        "\r\n",
        r#"{"id":"three"}"#,
    );
    let more = ["--positive", "a bird", "--negative", ""];
    let ran = requests(folder.path(), "sdxl", lines, &more).expect(0);
    assert!(ran.stderr.contains("3 written, 0 failed"), "{}", ran.stderr);
    let names = ["one.safetensors", "three.safetensors", "two.safetensors"];
    assert_eq!(written(folder.path()), names);
    let one = "--positive|a cat|--positive-2|b|--profile|a1111|--clip-skip|3|--size|1216x832|--crop|8,16|--target-size|640x480";
    let singles = [
        ("one", one),
        ("two", "--positive|a dog|--negative|fog|--negative-2|rain"),
        ("three", "--positive|a bird|--negative|"),
    ];
    for (id, arguments) in singles {
        let out = folder.path().join("single");
        let arguments: Vec<&str> = arguments.split('|').collect();
        encode("sdxl", &arguments, &out).expect(0);
        let batch = folder.path().join("out").join(format!("{id}.safetensors"));
        assert_eq!(
            std::fs::read(batch).unwrap(),
            std::fs::read(out).unwrap(),
            "{id}"
        );
    }
}

/// More lines than are encoded together, of different lengths and manners, one of them bad.
#[test]
fn lines_together_are_the_same_as_alone() {
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    let lines: Vec<String> = (0..20_usize)
        .map(|number| {
            let profile = ["comfyui", "a1111", "diffusers"][number % 3];
            let positive = if number % 4 == 0 { &long } else { "a cat" };
            let skip = if number == 5 { 99 } else { -2 };
            let skip = if profile == "comfyui" || number == 5 { skip } else { 2 };
            format!(
                r#"{{"id":"{number}","positive":"{positive} {number}","negative":"fog","profile":"{profile}","clip_skip":{skip}}}"#
            )
        })
        .collect();
    let together = tempdir().unwrap();
    let ran = requests(together.path(), "sdxl", &lines.join("\n"), &[]).expect(1);
    assert!(ran.stderr.contains("19 written, 1 failed"), "{ran:?}");
    assert!(ran.error().contains("line 6: "));
    for number in [0_usize, 1, 8, 17, 19] {
        let alone = tempdir().unwrap();
        requests(alone.path(), "sdxl", &lines[number], &[]).expect(0);
        let written = [&together, &alone].map(|folder| {
            let path = folder.path().join(format!("out/{number}.safetensors"));
            std::fs::read(path).unwrap()
        });
        assert!(written[0] == written[1], "line {}", number + 1);
    }
}

/// A program may wait for one answer before it asks for the next.
#[test]
fn nothing_waits_for_the_next_line() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let target = ["--requests", "-", "--out-dir", out.to_str().unwrap()];
    let mut child = command(&[&start[..], &target[..]].concat())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for id in ["a", "b"] {
        writeln!(input, r#"{{"id":"{id}","positive":"a cat"}}"#).unwrap();
        let begun = Instant::now();
        while !out.join(format!("{id}.safetensors")).exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no answer to {id}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_line_stops_nothing_and_is_counted() {
    let folder = tempdir().unwrap();
    let lines = [
        r#"{"id":"good","positive":"a cat"}"#,
        "not json",
        r#"{"id":"a","positive":"a","seed":1}"#,
        r#"{"id":"../up","positive":"a"}"#,
        r#"{"id":"","positive":"a"}"#,
        r#"{"positive":"a"}"#,
        r#"{"id":"good","positive":"again"}"#,
        r#"{"id":"b"}"#,
        r#"{"id":"c","positive":"a","width":8}"#,
        r#"{"id":"d","positive":"a","profile":"comfyui","clip_skip":2}"#,
        r#"{"id":"e","positive":"a","profile":"x"}"#,
        r#"{"id":"f","positive":7}"#,
        r#"{"id":"g","positive":"a","negative_2":"b"}"#,
        r#"{"id":"h","positive":null}"#,
        r#"{"id":"last","positive":"a dog"}"#,
    ];
    let ran = requests(folder.path(), "sd1", &lines.join("\n"), &[]).expect(1);
    assert_eq!(
        written(folder.path()),
        ["good.safetensors", "last.safetensors"]
    );
    for number in 2..=14 {
        let place = format!("line {number}: ");
        let mut errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert!(
            errors.any(|line| line.contains(&place)),
            "{place}{}",
            ran.stderr
        );
    }
    assert!(
        ran.stderr.contains("2 written, 13 failed"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.is_empty());
    let first = read(&folder.path().join("out/good.safetensors"));
    assert_eq!(first.metadata["positive"], "a cat");
}

#[test]
fn standard_input_is_a_file_too() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let start = [
        "encode",
        "--random-weights",
        "--tiny",
        "--family",
        "sd2",
        "--quiet",
    ];
    let target = ["--requests", "-", "--out-dir", out.to_str().unwrap()];
    let input = "{\"id\":\"a\",\"positive\":\"a cat\"}\n";
    let ran = run_with_input(&[&start[..], &target[..]].concat(), input).expect(0);
    assert_eq!(written(folder.path()), ["a.safetensors"]);
    assert!(!ran.stderr.contains("written"), "{}", ran.stderr);
}

#[test]
fn what_a_family_does_not_take_is_said_once() {
    let folder = tempdir().unwrap();
    let lines = "{\"id\":\"a\"}\n{\"id\":\"b\"}\n";
    let more = ["--positive", "a", "--size", "8x8"];
    let ran = requests(folder.path(), "sd1", lines, &more).expect(0);
    assert_eq!(ran.stderr.matches("a size was given").count(), 1);
    assert!(ran.stderr.contains("line 1: a size was given"));
}

#[test]
fn a_file_that_is_not_there_is_said_before_anything_is_loaded() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("missing.jsonl");
    let start = [
        "encode",
        "--random-weights",
        "--family",
        "sdxl",
        "--out-dir",
        "/tmp",
    ];
    let ran = run(&[&start[..], &["--requests", file.to_str().unwrap()]].concat()).expect(1);
    assert!(ran.error().contains("missing.jsonl"));
    assert!(!ran.stderr.contains("mean nothing"));
}

/// Two of them are warned of, whether they are encoded or copied; packed ones have no names of files.
#[test]
fn ids_that_some_disks_take_for_one_are_told_once() {
    let folder = tempdir().unwrap();
    let lines = concat!(
        r#"{"id":"Dusk","positive":"a cat"}"#,
        "\n",
        r#"{"id":"dusk","positive":"a cat"}"#,
        "\n",
        r#"{"id":"DUSK","positive":"a dog"}"#,
        "\n",
        r#"{"id":"dawn","positive":"a dog"}"#,
    );
    let warning = "line 2: the id differs from that of a line before in case or accents alone";
    let ran = requests(folder.path(), "sd1", lines, &[]).expect(0);
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("the id differs").count(), 1);
    let ran = requests(folder.path(), "sd1", lines, &["--resume"]).expect(0);
    assert!(!ran.stderr.contains("the id differs"), "{}", ran.stderr);
    let packed = tempdir().unwrap();
    let ran = requests(packed.path(), "sd1", lines, &["--pack", "1GB"]).expect(0);
    assert!(!ran.stderr.contains("the id differs"), "{}", ran.stderr);
}
