//! What is kept of windows: the same bits, never another's, never too much.

mod disk;

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
