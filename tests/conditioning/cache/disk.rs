//! What is kept in a folder: never another's, never too much, never damaged.

use std::fs;
use std::path::{Path, PathBuf};

use sd_conditioner::candle_core::DType;
use sd_conditioner::conditioner::{CacheOptions, DiskCache};
use sd_conditioner::weights::{Lora, SyntheticSize};
use sd_conditioner::{Builder, Conditioner, Family};

use super::{TEXTS, counts, off, same, tiny};
use crate::support::entries::{Stored, save};
use crate::support::loras;

fn on_disk(folder: &Path, max_bytes: u64) -> Builder {
    let folder = folder.to_owned();
    Conditioner::builder().cache(CacheOptions {
        memory_bytes: 0,
        disk: Some(DiskCache { folder, max_bytes }),
    })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// What is on disk serves another process's handle: here another load.
#[test]
fn files_serve_the_next_load() {
    let root = tempfile::tempdir().unwrap();
    for family in Family::ALL {
        let folder = root.path().join("new").join(family.name());
        let first = tiny(on_disk(&folder, 1 << 30), family);
        let written = first.encode_pair(TEXTS[0], "").unwrap();
        let misses = counts(&first)[2];
        let second = tiny(on_disk(&folder, 1 << 30), family);
        let read = second.encode_pair(TEXTS[0], "").unwrap();
        assert_eq!(counts(&second), [0, misses, 0]);
        assert!(same(written.positive(), read.positive()));
        assert!(same(written.negative(), read.negative()));
        let plain = tiny(off(), family).encode_pair(TEXTS[0], "").unwrap();
        assert!(same(plain.positive(), read.positive()));
    }
}

/// Weights, their type, `LoRA`s and kernels are told apart by content.
#[test]
fn files_of_others_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || on_disk(folder.path(), 1 << 30).output_dtype(DType::F32);
    let misses = |text: &Conditioner| {
        text.encode("a barn").unwrap();
        counts(text)
    };
    let text = tiny(builder(), Family::Sd1);
    assert_eq!(misses(&text), [0, 0, 1]);
    assert_eq!(misses(&tiny(builder(), Family::Sd1)), [0, 1, 0]);
    let seed = builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 74);
    assert_eq!(misses(&seed.unwrap()), [0, 0, 1]);
    for dtype in [DType::F16, DType::BF16] {
        assert_eq!(
            misses(&tiny(builder().dtype(dtype), Family::Sd1)),
            [0, 0, 1]
        );
    }
    let path = folder.path().join("lora.safetensors");
    save(
        &path,
        &loras::entries(Family::Sd1, SyntheticSize::Tiny, "kohya", (7, Stored::F32)),
    );
    let lora = Lora::open(&path).unwrap();
    let worn = |strength| {
        let text = tiny(builder(), Family::Sd1);
        text.with_loras(&[lora.at(strength)]).unwrap()
    };
    assert_eq!(misses(&worn(0.5)), [0, 0, 1]);
    assert_eq!(misses(&worn(0.5)), [0, 1, 0]);
    assert_eq!(misses(&worn(0.6)), [0, 0, 1]);
    // A strength of nothing leaves the tensors as they are.
    assert_eq!(misses(&worn(0.0)), [0, 1, 0]);
    let plain = tiny(builder().reference_kernels(), Family::Sd1);
    let known = u64::from(plain.kernels() == text.kernels());
    assert_eq!(misses(&plain), [0, known, 1 - known]);
}

#[test]
fn damaged_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || on_disk(folder.path(), 1 << 30);
    let want = tiny(builder(), Family::Sdxl).encode("a barn").unwrap();
    let all = files(folder.path());
    assert_eq!(all.len(), 2);
    let whole: Vec<Vec<u8>> = all.iter().map(|file| fs::read(file).unwrap()).collect();
    let last = whole[0].len() - 1;
    let mut cases: Vec<Vec<u8>> = [0, 8, 40, 47, 48, 60, last - 32, last]
        .map(|place| {
            let mut bytes = whole[0].clone();
            bytes[place] ^= 1;
            bytes
        })
        .into();
    cases.extend([0, 7, 79, 80, 81, last].map(|length| whole[0][..length].to_vec()));
    cases.push([&whole[0][..], &[0]].concat());
    cases.push(whole[1].clone()); // another window's
    cases.push(vec![0; 1 << 20]);
    for case in cases {
        fs::write(&all[0], &case).unwrap();
        let text = tiny(builder(), Family::Sdxl);
        assert!(same(&text.encode("a barn").unwrap(), &want));
        assert_eq!(counts(&text), [0, 1, 1], "{} bytes", case.len());
        assert_eq!(text.cache_stats().disk_failures, 1);
        assert!(fs::read(&all[0]).unwrap() == whole[0], "written anew");
    }
    assert_eq!(files(folder.path()), all, "nothing unfinished stays");
}

#[test]
fn the_folder_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let text = tiny(on_disk(folder.path(), 0), Family::Sd1);
    text.encode("a barn").unwrap();
    assert!(files(folder.path()).is_empty());
    let one = 77 * 128 * 4 + 80;
    let text = tiny(on_disk(folder.path(), 10 * one), Family::Sd1);
    // Strangers' files count for nothing and stay; what a dead writer left does not.
    let strangers = ["notes.txt", "united.states", "film.part"];
    let strangers = strangers.map(|name| folder.path().join(name));
    let dead = folder.path().join("1-1-1.states-part");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for path in strangers.iter().chain([&dead]) {
        fs::write(path, vec![0; 1 << 20]).unwrap();
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    for number in 0..30 {
        text.encode(format!("barn {number}").as_str()).unwrap();
        let states = files(folder.path());
        let states = states.iter().filter(|file| !strangers.contains(file));
        assert!(states.count() <= 10);
    }
    assert!(strangers.iter().all(|path| path.exists()) && !dead.exists());
    assert_eq!(text.cache_stats().disk_failures, 0);
    text.encode("barn 29").unwrap();
    assert_eq!(counts(&text), [0, 1, 30]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_and_one_that_goes_away_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let builder = on_disk(&file.join("below"), 1 << 30);
    let error = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("below") && error.contains("cache"),
        "{error}"
    );
    let gone = folder.path().join("gone");
    let text = tiny(on_disk(&gone, 1 << 30), Family::Sd1);
    fs::remove_dir(&gone).unwrap();
    text.encode("a barn").unwrap();
    assert_eq!(text.cache_stats().disk_failures, 1);
}

/// Whoever opens a pipe waits for someone to write.
#[cfg(unix)]
#[test]
fn a_pipe_in_a_files_place_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || on_disk(folder.path(), 1 << 30);
    let want = tiny(builder(), Family::Sd1).encode("a barn").unwrap();
    let all = files(folder.path());
    fs::remove_file(&all[0]).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&all[0]).status();
    assert!(made.unwrap().success());
    let text = tiny(builder(), Family::Sd1);
    assert!(same(&text.encode("a barn").unwrap(), &want));
    assert_eq!(text.cache_stats().disk_failures, 1);
    assert!(fs::metadata(&all[0]).unwrap().is_file(), "written anew");
}
