//! `encode --requests --pack --resume --replace`: what was asked for otherwise is made anew elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

use crate::requests::requests;
use crate::support::{Ran, command, read};

const PACK: [&str; 4] = ["--pack", "2GB", "--resume", "--replace"];

/// Bytes of what `sd1` gives a line: a window a side, 128 values of f32.
const EACH: u64 = 2 * 77 * 128 * 4;

fn lines(texts: &[(&str, &str)]) -> String {
    let line = |(id, text): &(&str, &str)| format!("{{\"id\":\"{id}\",\"positive\":\"{text}\"}}\n");
    texts.iter().map(line).collect()
}

fn run(folder: &Path, texts: &[(&str, &str)]) -> Ran {
    requests(folder, "sd1", &lines(texts), &PACK).expect(0)
}

fn said(ran: &Ran, words: &str) {
    assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
}

/// Every id once in the index, with the tensors of a file of its own. Returns the files, by id.
fn check(folder: &Path, texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    let single = tempdir().unwrap();
    requests(single.path(), "sd1", &lines(texts), &[]).expect(0);
    let text = fs::read_to_string(folder.join("out/embeddings.index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let mut files = BTreeMap::new();
    for (id, _) in texts {
        assert_eq!(
            text.matches(&format!("\"{id}\":{{")).count(),
            1,
            "{id}: {text}"
        );
        let place = &index["requests"][id];
        let file = place["file"].as_str().unwrap();
        let packed = read(&folder.join("out").join(file));
        let alone = read(&single.path().join(format!("out/{id}.safetensors")));
        let prefix = place["prefix"].as_str().unwrap();
        for name in alone.names() {
            let tensor = &packed.tensors[&format!("{prefix}{name}")];
            assert!(*tensor == alone.tensors[name], "{id}");
        }
        let of = prefix.trim_end_matches('.');
        let about: Value =
            serde_json::from_str(&packed.metadata[&format!("request.{of}")]).unwrap();
        assert_eq!(about["request"], alone.metadata["request"]);
        files.insert((*id).to_owned(), file.to_owned());
    }
    files
}

/// `c` is equal to `a` at first: it keeps what `a` had, has something of its own, and is as it was again.
#[test]
fn the_last_request_counts_whatever_it_was_before() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut texts = [("a", "a cat"), ("b", "a dog"), ("c", "a cat")];
    said(
        &run(folder, &texts),
        "3 written, 0 failed, 1 equal to others, in",
    );
    check(folder, &texts);
    texts[0].1 = "a bird";
    // Nobody misses what `a` had: `c` has it.
    said(
        &run(folder, &texts),
        "1 written, 0 failed, 2 done before, in",
    );
    let files = check(folder, &texts);
    assert_eq!(files["a"], "embeddings-00002.safetensors");
    assert_eq!(files["c"], "embeddings-00001.safetensors");
    // Equal to one of this run, and made anew all the same.
    texts = [("a", "fog"), ("b", "fog"), ("c", "fog")];
    let unused = format!(
        "3 written, 0 failed, {} bytes of what is packed lie unused",
        3 * EACH
    );
    said(&run(folder, &texts), &unused);
    check(folder, &texts);
    let unused = format!("3 done before, {} bytes of what", 3 * EACH);
    said(&run(folder, &texts), &unused);
    texts = [("a", "a cat"), ("b", "a dog"), ("c", "a cat")];
    let unused = format!("3 written, 0 failed, {} bytes of what", 6 * EACH);
    said(&run(folder, &texts), &unused);
    let files = check(folder, &texts);
    assert!(
        files
            .values()
            .all(|file| file == "embeddings-00004.safetensors")
    );
    said(&run(folder, &texts), "0 written, 0 failed, 3 done before");
    // Without the flag it is refused as before, and nothing is lost.
    texts[1].1 = "a hog";
    let more = ["--pack", "2GB", "--resume"];
    let ran = requests(folder, "sd1", &lines(&texts), &more).expect(1);
    assert!(ran.error().contains("with --replace"), "{}", ran.stderr);
    texts[1].1 = "a dog";
    check(folder, &texts);
}

/// One that shares no name with what it was: steps in place of none.
#[test]
fn no_file_has_a_request_twice() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let line = |more: &str| {
        format!("{{\"id\":\"a\",\"positive\":\"a [cat:dog:0.5]\",\"profile\":\"a1111\"{more}}}")
    };
    requests(folder, "sd1", &line(",\"steps\":4"), &PACK).expect(0);
    let ran = requests(folder, "sd1", &line(""), &PACK).expect(0);
    // Two texts, and the negative.
    said(
        &ran,
        &format!("1 written, 0 failed, {} bytes of what", 3 * EACH / 2),
    );
    let index = fs::read(folder.join("out/embeddings.index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let file = index["requests"]["a"]["file"].as_str().unwrap();
    assert_eq!(read(&folder.join("out").join(file)).names().len(), 2);
}

/// The part that a kill leaves holds what was asked for first; the next run asks for something else.
#[test]
fn a_killed_run_is_replaced_too() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let start = ["encode", "--random-weights", "--tiny", "--family", "sd1"];
    let target = ["--requests", "-", "--out-dir", out.to_str().unwrap()];
    let texts = [("a", "a cat"), ("b", "a dog"), ("c", "a cat"), ("d", "fog")];
    let mut before = texts;
    for (number, change) in ["a hog", "a bird"].into_iter().enumerate() {
        before[number].1 = change;
        let mut child = command(&[&start[..], &target, &PACK].concat())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines(&before).as_bytes()).unwrap();
        let journal = |part: usize| out.join(format!(".embeddings-{part:05}.journal"));
        // The second run closes the first one's part, for it has the ids.
        let entries = [5, 3][number];
        let begun = Instant::now();
        let count = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
        while count(&journal(number + 1)) < entries {
            assert!(begun.elapsed() < Duration::from_secs(60), "no journal");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        before = texts;
    }
    run(folder.path(), &texts);
    let fresh = tempdir().unwrap();
    run(fresh.path(), &texts);
    check(folder.path(), &texts);
    check(fresh.path(), &texts);
    said(
        &run(folder.path(), &texts),
        "0 written, 0 failed, 4 done before",
    );
}
