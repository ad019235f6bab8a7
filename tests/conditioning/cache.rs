//! What is kept of windows: the same bits, never another's, never too much, on disk too.

use std::fs;
use std::path::{Path, PathBuf};

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::{CacheOptions, CacheStats, DiskCache};
use sd_conditioner::kernels;
use sd_conditioner::weights::{Lora, Synthetic, SyntheticSize};
use sd_conditioner::{Builder, Conditioner, Conditioning, Embeddings, Family, Profile, Request};

use crate::support::close::bits;
use crate::support::entries::{Entry, Stored, save};
use crate::support::{embeddings, loras};

const TEXTS: [&str; 4] = [
    "a (red:1.3) barn, (old:0.6) trees",
    "a red barn",
    "",
    "embedding:synth-xl-two at dusk",
];

fn tiny(builder: Builder, family: Family) -> Conditioner {
    builder
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap()
}

fn options(memory_bytes: usize) -> Builder {
    let disk = None;
    Conditioner::builder().cache(CacheOptions { memory_bytes, disk })
}

fn on_disk(folder: &Path, max_bytes: u64) -> Builder {
    let folder = folder.to_owned();
    Conditioner::builder().cache(CacheOptions {
        memory_bytes: 0,
        disk: Some(DiskCache { folder, max_bytes }),
    })
}

fn off() -> Builder {
    Conditioner::builder().cache(CacheOptions::OFF)
}

fn same(one: &Conditioning, other: &Conditioning) -> bool {
    let pooled = |side: &Conditioning| side.pooled().map(bits);
    bits(one.context()) == bits(other.context()) && pooled(one) == pooled(other)
}

/// Hits in memory, hits on disk, misses.
fn counts(text: &Conditioner) -> [u64; 3] {
    let CacheStats {
        hits,
        disk_hits,
        misses,
        ..
    } = text.cache_stats();
    [hits, disk_hits, misses]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Every profile's requests, twice, some windows known and some not, against no cache at all.
#[test]
fn known_windows_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let set = Embeddings::folder(folder.path()).unwrap();
    for family in Family::ALL {
        let (cached, plain) = (tiny(options(64 << 20), family), tiny(off(), family));
        for profile in Profile::ALL {
            let request = |text| Request::new(text).profile(profile).embeddings(&set);
            cached.encode(request(TEXTS[0])).unwrap();
            for _ in 0..2 {
                let all = cached.encode_batch(&TEXTS.map(request)).unwrap();
                for (text, one) in TEXTS.iter().zip(&all) {
                    let want = plain.encode(request(text)).unwrap();
                    assert!(same(one, &want), "{family} {} {text:?}", profile.name());
                }
            }
        }
        let [hits, disk_hits, misses] = counts(&cached);
        assert!(hits > misses && misses > 0 && disk_hits == 0);
        assert_eq!(counts(&plain)[0], 0);
    }
}

#[test]
fn only_new_windows_are_encoded() {
    let text = tiny(Conditioner::builder(), Family::Sdxl);
    text.encode_pair("a barn", "blurry").unwrap();
    assert_eq!(counts(&text), [0, 0, 4]);
    text.encode_pair("a windmill", "blurry").unwrap();
    assert_eq!(counts(&text), [2, 0, 6]);
    text.encode_pair("a windmill", "a barn").unwrap();
    assert_eq!(counts(&text), [6, 0, 6]);
    // Another state of the same windows is another entry.
    text.encode(Request::new("a barn").clip_skip(1)).unwrap();
    assert_eq!(counts(&text), [6, 0, 8]);
    text.clear_cache();
    assert_eq!(
        (text.cache_stats().entries, text.cache_stats().bytes),
        (0, 0)
    );
    text.encode("a barn").unwrap();
    assert_eq!(counts(&text), [6, 0, 10]);
}

#[test]
fn memory_is_bounded_and_the_empty_prompt_stays() {
    let bound = 8 * 77 * 128 * 4; // fewer than eight windows of the tiny ViT-L
    let text = tiny(options(bound), Family::Sd1);
    text.encode("").unwrap();
    for number in 0..20 {
        text.encode(format!("barn {number}").as_str()).unwrap();
        assert!(text.cache_stats().bytes <= bound);
    }
    assert_eq!(text.cache_stats().entries, 7);
    let before = counts(&text);
    text.encode("").unwrap();
    text.encode("barn 19").unwrap();
    text.encode("barn 14").unwrap();
    text.encode("barn 13").unwrap();
    let after = counts(&text);
    assert_eq!([after[0] - before[0], after[2] - before[2]], [3, 1]);
}

#[test]
fn vectors_are_known_by_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.safetensors");
    let text = tiny(Conditioner::builder(), Family::Sd1);
    let encode = |value: f32| {
        save(
            &path,
            &[Entry::filled("emb_params", Stored::F32, &[1, 128], value)],
        );
        let set = Embeddings::folder(folder.path()).unwrap();
        let request = Request::new("embedding:it").profile(Profile::ComfyUi);
        text.encode(request.embeddings(&set)).unwrap()
    };
    let (one, other, again) = (encode(0.25), encode(0.5), encode(0.25));
    assert!(same(&one, &again) && !same(&one, &other));
    assert_eq!(counts(&text), [1, 0, 2]);
}

/// One memory for all handles of a load, one entry for each set of `LoRA`s.
#[test]
fn encoders_with_loras_have_entries_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    save(
        &path,
        &loras::entries(Family::Sd1, SyntheticSize::Tiny, "kohya", (7, Stored::F32)),
    );
    let text = tiny(Conditioner::builder(), Family::Sd1);
    let lora = Lora::open(&path).unwrap();
    let (half, whole) = ([lora.at(0.5)], [lora.at(1.0)]);
    let plain = text.encode("a barn").unwrap();
    let worn = text.with_loras(&half).unwrap().encode("a barn").unwrap();
    let more = text.with_loras(&whole).unwrap().encode("a barn").unwrap();
    assert_eq!(counts(&text), [0, 0, 3]);
    assert!(!same(&plain, &worn) && !same(&worn, &more) && !same(&plain, &more));
    let again = text.with_loras(&half).unwrap();
    assert!(same(&again.encode("a barn").unwrap(), &worn));
    let none = again.with_loras(&[]).unwrap();
    assert!(same(&none.encode("a barn").unwrap(), &plain));
    assert_eq!(counts(&text), [2, 0, 3]);
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

#[test]
fn threads_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Some(DiskCache {
        folder: folder.path().to_owned(),
        max_bytes: 1 << 30,
    });
    let options = CacheOptions {
        disk,
        ..CacheOptions::default()
    };
    let text = tiny(Conditioner::builder().cache(options), Family::Sd1);
    let want: Vec<Conditioning> = TEXTS[..3]
        .iter()
        .map(|prompt| tiny(off(), Family::Sd1).encode(*prompt).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..12 {
                    let place = round % 3;
                    if round == 5 {
                        text.clear_cache();
                    }
                    let ours = text.encode(TEXTS[place]).unwrap();
                    assert!(same(&ours, &want[place]));
                }
            });
        }
    });
    let stats = text.cache_stats();
    assert_eq!((stats.disk_failures, stats.entries), (0, 3));
    assert_eq!(stats.hits + stats.disk_hits + stats.misses, 48);
}

/// `devices.rs` moves between devices, where there are two.
#[test]
fn what_is_there_already_stays() {
    let text = tiny(Conditioner::builder(), Family::Sdxl);
    let before = text.encode(TEXTS[0]).unwrap();
    let (entries, name) = (text.cache_stats().entries, text.kernels());
    text.offload().unwrap();
    text.load_to(&Device::Cpu).unwrap();
    assert!(text.device().is_cpu() && text.kernels() == name);
    assert_eq!(text.cache_stats().entries, entries, "nothing moved");
    assert!(same(&text.clone().encode(TEXTS[0]).unwrap(), &before));
}

/// Why a window may be kept whatever it was encoded with: at real sizes too, no row of a product, and
/// no window of an attention, depends on how many others there are.
#[test]
fn a_windows_bits_do_not_depend_on_its_batch() {
    let device = Device::Cpu;
    let kernels = kernels::choose(&device).unwrap();
    let random = |shape: &[usize]| {
        let name = format!("{shape:?}");
        let values = Synthetic::plain(73, "test", &name, shape.iter().product(), 1.0);
        Tensor::from_vec(values, shape, &device).unwrap()
    };
    for (columns, rows) in [(768, 3072), (1280, 3840), (5120, 1280)] {
        let x = random(&[6 * 77, columns]);
        let weight = random(&[rows, columns]);
        for dtype in [DType::F32, DType::F16] {
            let weight = weight.to_dtype(dtype).unwrap();
            let product = |windows: usize| {
                let x = x.narrow(0, 0, windows * 77).unwrap();
                let all = kernels.linear(&x, &weight, None).unwrap();
                bits(&all.narrow(0, 0, 77).unwrap())
            };
            let alone = product(1);
            for windows in [2, 3, 6] {
                assert!(
                    product(windows) == alone,
                    "{columns} {rows} {dtype:?} {windows}"
                );
            }
        }
    }
    let qkv = random(&[6, 77, 3 * 1280]);
    let mixed = |windows: usize| {
        let qkv = qkv.narrow(0, 0, windows).unwrap();
        let all = kernels.causal_attention(&qkv, 20, None).unwrap();
        bits(&all.narrow(0, 0, 1).unwrap())
    };
    assert!(mixed(1) == mixed(2) && mixed(1) == mixed(6));
}
