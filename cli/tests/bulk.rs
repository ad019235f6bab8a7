//! `encode --requests` over many lines: resuming, sharing, packing, and what is encoded once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::{Ran, Written, command, read};

/// Lines of different lengths; some are equal but for their ids.
fn lines(count: usize) -> String {
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    let lines = (0..count).map(|number| {
        let positive = match number % 4 {
            0 => "a cat".to_owned(),
            1 => format!("{long}{number}"),
            _ => format!("a dog {number}"),
        };
        let profile = ["comfyui", "a1111"][number / 2 % 2];
        format!(
            "{{\"id\":\"id{number}\",\"positive\":\"{positive}\",\"negative\":\"fog\",\"profile\":\"{profile}\"}}\n"
        )
    });
    lines.collect()
}

/// The bytes of every file that a folder shows.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = written(folder).into_iter();
    let names = names.filter(|name| !name.starts_with('.'));
    names
        .map(|name| {
            let bytes = fs::read(folder.join("out").join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

fn said(ran: &Ran, words: &str) {
    assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
}

#[test]
fn shards_have_every_line_once() {
    let (all, shards) = (tempdir().unwrap(), tempdir().unwrap());
    requests(all.path(), "sd1", &lines(11), &[]).expect(0);
    for (shard, count) in [("1/3", 4), ("2/3", 4), ("3/3", 3)] {
        let ran = requests(shards.path(), "sd1", &lines(11), &["--shard", shard]).expect(0);
        said(&ran, &format!("{count} written, 0 failed"));
    }
    assert_eq!(files(shards.path()), files(all.path()));
}

#[test]
fn batches_change_no_bit() {
    let (one, many) = (tempdir().unwrap(), tempdir().unwrap());
    for (folder, windows) in [(&one, "1"), (&many, "64")] {
        requests(
            folder.path(),
            "sdxl",
            &lines(14),
            &["--batch-windows", windows],
        )
        .expect(0);
    }
    assert!(files(one.path()) == files(many.path()));
}

/// Missing, cut and lengthened files, and one of another prompt.
#[test]
fn what_is_not_whole_is_made_anew() {
    let (fresh, resumed) = (tempdir().unwrap(), tempdir().unwrap());
    for folder in [&fresh, &resumed] {
        requests(folder.path(), "sdxl", &lines(8), &[]).expect(0);
    }
    let out = |id: u8| resumed.path().join(format!("out/id{id}.safetensors"));
    fs::remove_file(out(0)).unwrap();
    let bytes = fs::read(out(1)).unwrap();
    fs::write(out(1), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(out(2), [&bytes[..], b"more"].concat()).unwrap();
    fs::copy(out(4), out(3)).unwrap();
    let ran = requests(resumed.path(), "sdxl", &lines(8), &["--resume"]).expect(0);
    said(&ran, "4 written, 0 failed, 4 done before");
    assert!(files(resumed.path()) == files(fresh.path()));
    let ran = requests(resumed.path(), "sdxl", &lines(8), &["--resume"]).expect(0);
    said(&ran, "0 written, 0 failed, 8 done before");
    // Sizes are no text, and make another file all the same.
    let ran = requests(
        resumed.path(),
        "sdxl",
        &lines(8),
        &["--resume", "--size", "64x64"],
    );
    said(&ran.expect(0), "8 written, 0 failed");
}

#[test]
fn equal_requests_are_encoded_once() {
    let folder = tempdir().unwrap();
    let line = |id: &str, text: &str| format!("{{\"id\":\"{id}\",\"positive\":{text}}}\n");
    let mut lines = [
        ("a", "\"x\""),
        ("b", "\"y\""),
        ("c", "\"x\""),
        ("d", "\"x\""),
    ]
    .map(|(id, text)| line(id, text))
    .concat();
    lines += "{\"id\":\"e\",\"positive\":\"x\",\"profile\":\"a1111\"}\n";
    let ran = requests(folder.path(), "sd2", &lines, &[]).expect(0);
    said(&ran, "5 written, 0 failed, 2 equal to others");
    let files = files(folder.path());
    assert_eq!(files["c.safetensors"], files["a.safetensors"]);
    assert_eq!(files["d.safetensors"], files["a.safetensors"]);
    assert_ne!(files["e.safetensors"], files["a.safetensors"]);
    let alone = tempdir().unwrap();
    requests(alone.path(), "sd2", &line("c", "\"x\""), &[]).expect(0);
    assert_eq!(
        self::files(alone.path())["c.safetensors"],
        files["c.safetensors"]
    );
}

/// Finds a request's tensors as a reader of the index does.
fn packed(
    folder: &Path,
    index: &Value,
    id: &str,
) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let place = &index["requests"][id];
    let file = place["file"]
        .as_str()
        .unwrap_or_else(|| panic!("{id} is not in {index}"));
    let prefix = place["prefix"].as_str().unwrap();
    let Written { tensors, .. } = read(&folder.join("out").join(file));
    let own = tensors.into_iter();
    own.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)))
        .collect()
}

/// Every request of `lines(count)` is in the pack as it is in a file of its own.
fn assert_packed(folder: &Path, family: &str, count: usize, stem: &str) {
    let single = tempdir().unwrap();
    requests(single.path(), family, &lines(count), &[]).expect(0);
    let text = fs::read(folder.join(format!("out/{stem}.index.json"))).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(index["requests"].as_object().unwrap().len(), count);
    assert_eq!(index["metadata"]["family"], family);
    for number in 0..count {
        let id = format!("id{number}");
        let alone = read(&single.path().join(format!("out/{id}.safetensors")));
        let alone: BTreeMap<_, _> = alone.tensors.into_iter().collect();
        assert!(packed(folder, &index, &id) == alone, "{id}");
    }
}

#[test]
fn packed_files_hold_the_same_tensors() {
    for (family, size) in [("sd1", "100KB"), ("sdxl", "2GB"), ("refiner", "1MB")] {
        let folder = tempdir().unwrap();
        let ran = requests(folder.path(), family, &lines(12), &["--pack", size]).expect(0);
        said(&ran, "12 written, 0 failed, 2 equal to others");
        assert_packed(folder.path(), family, 12, "embeddings");
        let first = read(&folder.path().join("out/embeddings-00001.safetensors"));
        assert_eq!(first.metadata["out_dtype"], "f32");
        let about: Value = serde_json::from_str(&first.metadata["request.id0"]).unwrap();
        assert_eq!(
            (&about["positive"], &about["profile"]),
            (&"a cat".into(), &"comfyui".into())
        );
        let again = requests(folder.path(), family, &lines(12), &["--pack", size]).expect(1);
        assert!(again.error().contains("--resume goes on"));
    }
}

#[test]
fn packed_shards_lie_side_by_side() {
    let folder = tempdir().unwrap();
    for shard in ["1/2", "2/2"] {
        let more = ["--pack", "1MB", "--shard", shard];
        requests(folder.path(), "sd1", &lines(5), &more).expect(0);
    }
    let counts = [("embeddings-1-of-2", 3), ("embeddings-2-of-2", 2)];
    for (stem, count) in counts {
        let text = fs::read(folder.path().join(format!("out/{stem}.index.json"))).unwrap();
        let index: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(index["requests"].as_object().unwrap().len(), count);
    }
}

/// Damage is found, another request under an old id is refused, other weights are.
#[test]
fn packed_files_are_resumed() {
    let folder = tempdir().unwrap();
    let pack = ["--pack", "200KB", "--resume"];
    requests(folder.path(), "sd1", &lines(6), &pack).expect(0);
    let ran = requests(folder.path(), "sd1", &lines(12), &pack).expect(0);
    said(&ran, "6 written, 0 failed, 6 done before");
    assert_packed(folder.path(), "sd1", 12, "embeddings");
    let first = folder.path().join("out/embeddings-00001.safetensors");
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 1]).unwrap();
    let ran = requests(folder.path(), "sd1", &lines(12), &pack).expect(0);
    said(&ran, "not as long as its header says");
    assert!(!ran.stderr.contains("12 done before") && !ran.stderr.contains(" 0 done before"));
    assert_packed(folder.path(), "sd1", 12, "embeddings");
    let changed = lines(12).replace("a dog 3", "a hog 3");
    let ran = requests(folder.path(), "sd1", &changed, &pack).expect(1);
    assert!(
        ran.error()
            .contains("line 4: the id `id3` was packed before")
    );
    let ran = requests(folder.path(), "sd2", &lines(12), &pack).expect(1);
    assert!(ran.error().contains("packed with other weights"));
}

/// A run that is killed while it waits; what it had written is not made again.
#[test]
fn a_killed_run_goes_on() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let target = [
        "--pack",
        "2GB",
        "--requests",
        "-",
        "--out-dir",
        out.to_str().unwrap(),
    ];
    let mut child = command(&[&start[..], &target[..]].concat())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines(6).as_bytes()).unwrap();
    let journal = out.join(".embeddings-00001.journal");
    let begun = Instant::now();
    while fs::read_to_string(&journal)
        .unwrap_or_default()
        .lines()
        .count()
        < 6
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "no journal");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("embeddings-00001.safetensors").exists());
    // Half a tensor more than the journal knows of.
    let part = out.join(".embeddings-00001.part");
    let mut part = fs::OpenOptions::new().append(true).open(part).unwrap();
    part.write_all(&[1; 1000]).unwrap();
    let ran = requests(
        folder.path(),
        "sd1",
        &lines(9),
        &["--pack", "2GB", "--resume"],
    )
    .expect(0);
    assert!(ran.stderr.contains("done before"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("9 written"), "{}", ran.stderr);
    assert_packed(folder.path(), "sd1", 9, "embeddings");
}

/// Bytes of memory that a run took at most, as the kernel tells it while the run waits for more.
#[cfg(target_os = "linux")]
fn memory_of(count: usize) -> u64 {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let target = [
        "--pack",
        "2GB",
        "--requests",
        "-",
        "--out-dir",
        out.to_str().unwrap(),
    ];
    let mut child = command(&[&start[..], &target[..]].concat())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(child.stdin.take().unwrap());
    for number in 0..count {
        let text = number % 8;
        writeln!(
            input,
            "{{\"id\":\"{number}\",\"positive\":\"a cat {text}\"}}"
        )
        .unwrap();
    }
    input.flush().unwrap();
    let same = out.join("embeddings.same.jsonl");
    let begun = Instant::now();
    while fs::read_to_string(&same)
        .unwrap_or_default()
        .lines()
        .count()
        < count - 8
    {
        assert!(begun.elapsed() < Duration::from_secs(200), "too slow");
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    kib * 1024
}

/// What is kept of a line that is behind: less than a hundred bytes.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_lines() {
    let (few, many) = (memory_of(2_000), memory_of(100_000));
    assert!(many < few + 100 * 98_000, "{few} {many}");
}

/// Both have a tensor `x.hires.time_ids`, and each finds its own.
#[test]
fn ids_that_end_like_a_pass_are_packed_apart() {
    let lines = concat!(
        r#"{"id":"x","positive":"a [cat:dog:0.5]","profile":"a1111","steps":4,"hires_steps":2}"#,
        "\n",
        r#"{"id":"x.hires","positive":"fog","width":64,"height":64}"#,
        "\n",
    );
    let (folder, single) = (tempdir().unwrap(), tempdir().unwrap());
    requests(single.path(), "sdxl", lines, &[]).expect(0);
    for _ in 0..2 {
        let more = ["--pack", "2GB", "--resume"];
        requests(folder.path(), "sdxl", lines, &more).expect(0);
        let index = fs::read(folder.path().join("out/embeddings.index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        for id in ["x", "x.hires"] {
            let alone = read(&single.path().join(format!("out/{id}.safetensors")));
            let alone: BTreeMap<_, _> = alone.tensors.into_iter().collect();
            assert!(packed(folder.path(), &index, id) == alone, "{id}");
        }
    }
}

/// A line of a megabyte fails for itself, and costs what a plan costs.
#[test]
fn a_line_that_is_too_large_fails_alone() {
    let folder = tempdir().unwrap();
    let huge = "word ".repeat(200_000);
    let lines = format!(
        "{{\"id\":\"a\",\"positive\":\"{huge}\",\"profile\":\"a1111\"}}\n{{\"id\":\"b\",\"positive\":\"a cat\"}}\n"
    );
    let ran = requests(folder.path(), "sd1", &lines, &[]).expect(1);
    assert!(
        ran.error().contains("line 1: too large: "),
        "{}",
        ran.error()
    );
    said(&ran, "1 written, 1 failed");
    assert_eq!(written(folder.path()), ["b.safetensors"]);
}

#[test]
fn a_packed_run_that_cannot_end_says_how_it_goes_on() {
    let folder = tempdir().unwrap();
    let index = folder.path().join("out/embeddings.index.json");
    fs::create_dir_all(&index).unwrap();
    let ran = requests(folder.path(), "sd1", &lines(2), &["--pack", "2GB"]).expect(1);
    assert!(ran.error().contains("--resume"), "{}", ran.error());
    fs::remove_dir(&index).unwrap();
    let more = ["--pack", "2GB", "--resume"];
    let ran = requests(folder.path(), "sd1", &lines(2), &more).expect(0);
    said(&ran, "0 written, 0 failed");
    assert!(index.is_file());
}
