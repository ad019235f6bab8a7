//! `encode --requests --format`: files for other programs, one for each line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sd_conditioner::storage::kohya;
use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::{Ran, encode, read};

/// Each format, and how its files end.
const FORMATS: [(&str, &str); 2] = [
    ("te-outputs", "_te_outputs.npz"),
    ("conditioning", ".conditioning"),
];

fn lines(count: usize) -> String {
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    let line = |number: usize| {
        let text = match number % 3 {
            0 => "a cat".to_owned(),
            1 => format!("{long}{number}"),
            _ => format!("a dog {number}"),
        };
        format!("{{\"id\":\"id{number}\",\"positive\":\"{text}\",\"profile\":\"comfyui\"}}\n")
    };
    (0..count).map(line).collect()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &String| fs::read(folder.join("out").join(name)).unwrap();
    let names = written(folder).into_iter();
    names.map(|name| (name.clone(), read(&name))).collect()
}

fn said(ran: &Ran, words: &str) {
    assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
}

#[test]
fn each_line_is_the_file_of_a_single_command() {
    for (format, ending) in FORMATS {
        let folder = tempdir().unwrap();
        let more = ["--format", format, "--out-dtype", "f16"];
        let ran = requests(folder.path(), "sdxl", &lines(4), &more).expect(0);
        said(&ran, "4 written, 0 failed, 1 equal to others");
        let files = files(folder.path());
        let names: Vec<String> = (0..4).map(|number| format!("id{number}{ending}")).collect();
        assert_eq!(files.keys().cloned().collect::<Vec<_>>(), names);
        let single = folder.path().join(format!("single{ending}"));
        let long = format!("{}1", "a wooden bridge, crowded with people, ".repeat(12));
        let prompt = ["--positive", &long, "--profile", "comfyui"];
        let more = [&prompt[..], &["--out-dtype", "f16"]].concat();
        encode("sdxl", &more, &single).expect(0);
        assert!(files[&names[1]] == fs::read(&single).unwrap(), "{format}");
        assert_eq!(files[&names[3]], files[&names[0]]);
    }
}

/// Missing, cut and lengthened files, and one of another line.
#[test]
fn what_is_not_whole_is_made_anew() {
    for (format, ending) in FORMATS {
        let (fresh, resumed) = (tempdir().unwrap(), tempdir().unwrap());
        let run = |folder: &Path, more: &[&str]| {
            let more = [&["--format", format], more].concat();
            requests(folder, "sdxl", &lines(8), &more).expect(0)
        };
        run(fresh.path(), &[]);
        run(resumed.path(), &[]);
        let out = |id: u8| resumed.path().join(format!("out/id{id}{ending}"));
        fs::remove_file(out(0)).unwrap();
        let bytes = fs::read(out(1)).unwrap();
        fs::write(out(1), &bytes[..bytes.len() / 2]).unwrap();
        fs::write(out(2), [&bytes[..], b"more"].concat()).unwrap();
        fs::copy(out(4), out(5)).unwrap();
        let words = "4 written, 0 failed, 4 done before";
        said(&run(resumed.path(), &["--resume"]), words);
        assert!(files(resumed.path()) == files(fresh.path()));
        let words = "0 written, 0 failed, 8 done before";
        said(&run(resumed.path(), &["--resume"]), words);
        // Another type, other weights, another size: neither is in the name.
        for more in [["--out-dtype", "f16"], ["--size", "64x64"]] {
            let more = [&["--resume"], &more[..]].concat();
            said(&run(resumed.path(), &more), "8 written, 0 failed");
            said(&run(resumed.path(), &more), "8 done before");
        }
        // Nobody's file of this name is one of ours.
        if format == "te-outputs" {
            let cached = kohya::load(out(3)).unwrap();
            kohya::save(out(3), &cached, cached.context().dtype()).unwrap();
            let more = ["--resume", "--size", "64x64"];
            said(&run(resumed.path(), &more), "1 written, 0 failed, 7 done");
        }
    }
}

#[test]
fn shards_and_batches_change_no_bit() {
    for (format, _) in FORMATS {
        let (all, shards) = (tempdir().unwrap(), tempdir().unwrap());
        let more = ["--format", format, "--batch-windows", "1"];
        requests(all.path(), "sdxl", &lines(7), &more).expect(0);
        for shard in ["1/2", "2/2"] {
            let more = ["--format", format, "--shard", shard];
            requests(shards.path(), "sdxl", &lines(7), &more).expect(0);
        }
        assert!(files(all.path()) == files(shards.path()), "{format}");
    }
}

/// What a format has no place for is said before anything is encoded, or loaded where that is enough.
#[test]
fn what_has_no_place_is_refused() {
    let folder = tempdir().unwrap();
    let refused = |family: &str, more: &[&str], code: i32, words: &str| {
        let ran = requests(folder.path(), family, &lines(2), more).expect(code);
        assert!(ran.error().contains(words), "{}", ran.stderr);
        assert!(!ran.stderr.contains("mean nothing"), "{}", ran.stderr);
    };
    for family in ["sd1", "sd2", "refiner"] {
        refused(family, &["--format", "te-outputs"], 1, "SDXL only");
    }
    let bf16 = ["--format", "te-outputs", "--out-dtype", "bf16"];
    refused("sdxl", &bf16, 1, "numpy has no bf16");
    for (format, _) in FORMATS {
        let pack = ["--format", format, "--pack", "1MB"];
        refused("sdxl", &pack, 2, "--pack writes safetensors files alone");
    }
    let lines = concat!(
        r#"{"id":"a","positive":"a [cat:dog:0.5]","profile":"a1111","steps":4}"#,
        "\n",
        r#"{"id":"b","positive":"a cat","negative":"fog"}"#,
        "\n",
        r#"{"id":"c","positive":"a dog","negative":"fog"}"#,
    );
    for (format, ending) in FORMATS {
        let folder = tempdir().unwrap();
        let ran = requests(folder.path(), "sdxl", lines, &["--format", format]).expect(1);
        said(&ran, "line 1: only a .safetensors file has a place");
        said(&ran, "2 written, 1 failed");
        // Once for all lines.
        assert_eq!(ran.stderr.matches("the negative is not in it").count(), 1);
        let names = ["b", "c"].map(|id| format!("{id}{ending}"));
        assert_eq!(written(folder.path()), names);
    }
    let pair = ["--format", "safetensors", "--pack", "1MB"];
    requests(folder.path(), "sdxl", &self::lines(2), &pair).expect(0);
}

/// No file of the positive prompt alone is as long as a negative that is not in it.
#[test]
fn a_negative_changes_nothing() {
    let (with, without) = (tempdir().unwrap(), tempdir().unwrap());
    let line = r#"{"id":"a","positive":"a cat","profile":"comfyui"}"#;
    let long = "a wooden bridge, crowded with people, ".repeat(12);
    for (format, _) in FORMATS {
        let more = ["--format", format];
        requests(without.path(), "sdxl", line, &more).expect(0);
        let more = ["--format", format, "--negative", &long];
        requests(with.path(), "sdxl", line, &more).expect(0);
    }
    assert!(files(with.path()) == files(without.path()));
}

/// The positive side alone has the numbers that it has in a pair, in half the bytes.
#[test]
fn one_side_is_written_alone() {
    let lines = concat!(
        r#"{"id":"a","positive":"a cat"}"#,
        "\n",
        r#"{"id":"b","positive":"a [cat:dog:0.5]","profile":"a1111","steps":4,"hires_steps":2}"#,
        "\n",
        r#"{"id":"c","positive":"a cat","only":null}"#,
        "\n",
    );
    for family in ["sd1", "sd2", "sdxl", "refiner"] {
        let (both, alone) = (tempdir().unwrap(), tempdir().unwrap());
        requests(both.path(), family, lines, &[]).expect(0);
        let more = ["--only", "positive"];
        requests(alone.path(), family, lines, &more).expect(0);
        let file = |folder: &Path, id: &str| read(&folder.join(format!("out/{id}.safetensors")));
        for id in ["a", "b"] {
            let (pair, one) = (file(both.path(), id), file(alone.path(), id));
            assert_eq!(one.metadata["only"], "positive");
            assert!(!one.metadata.contains_key("negative_absent"));
            let is_positive = |name: &&str| !name.contains("negative_");
            let names: Vec<&str> = pair.names().into_iter().filter(is_positive).collect();
            assert_eq!(one.names(), names);
            for name in names {
                assert!(one.tensors[name] == pair.tensors[name], "{family} {name}");
            }
            assert_ne!(one.metadata["request"], pair.metadata["request"]);
        }
        assert!(!file(alone.path(), "b").metadata["schedule"].contains("negative"));
        let (pair, null) = (file(both.path(), "c"), file(alone.path(), "c"));
        assert_eq!((pair.tensors, pair.metadata), (null.tensors, null.metadata));
        let sizes = [both.path(), alone.path()].map(|folder| {
            fs::metadata(folder.join("out/a.safetensors"))
                .unwrap()
                .len()
        });
        assert!(sizes[1] < sizes[0] / 2 + 1000, "{sizes:?}");
    }
}

#[test]
fn a_line_may_ask_for_one_side() {
    let folder = tempdir().unwrap();
    let lines = concat!(
        r#"{"id":"a","positive":"a cat","negative":"fog","only":"positive"}"#,
        "\n",
        r#"{"id":"b","positive":"a cat","only":"positive"}"#,
        "\n",
        r#"{"id":"c","positive":"a cat","only":"negative"}"#,
        "\n",
        r#"{"id":"d","positive":"a cat"}"#,
        "\n",
    );
    let ran = requests(folder.path(), "sdxl", lines, &[]).expect(1);
    said(&ran, "line 3: `only`: `negative`, and `positive`");
    said(&ran, "3 written, 1 failed, 1 equal to others");
    said(&ran, "line 1: only the positive prompt is written");
    let alone = folder.path().join("alone");
    let more = ["--positive", "a cat", "--only", "positive"];
    encode("sdxl", &more, &alone).expect(0);
    let files = files(folder.path());
    assert!(files["a.safetensors"] == fs::read(alone).unwrap());
    // Changed its mind: what is there is not what is wanted.
    let changed = lines.replace(r#""a cat"}"#, r#""a cat","only":"positive"}"#);
    let ran = requests(folder.path(), "sdxl", &changed, &["--resume"]).expect(1);
    said(&ran, "1 written, 1 failed, 2 done before");
}
