//! `encode` with tiny random weights: shapes, keys, metadata, and the library's numbers.

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request, SizeHints};
use tempfile::tempdir;

use crate::support::{encode, floats, read, run};

const PLAIN: [&str; 2] = ["negative_prompt_embeds", "prompt_embeds"];

const SIZED: [&str; 8] = [
    "negative_pooled_prompt_embeds",
    "negative_prompt_embeds",
    "negative_time_ids",
    "negative_vector",
    "pooled_prompt_embeds",
    "prompt_embeds",
    "time_ids",
    "vector",
];

/// Family, names, channels, pooled, size numbers.
const SHAPES: [(Family, &[&str], usize, usize, usize); 4] = [
    (Family::Sd1, &PLAIN, 128, 0, 0),
    (Family::Sd2, &PLAIN, 192, 0, 0),
    (Family::Sdxl, &SIZED, 128 + 256, 256, 6),
    (Family::Refiner, &SIZED, 256, 256, 5),
];

#[test]
fn every_family_has_its_tensors_and_the_librarys_numbers() {
    let folder = tempdir().unwrap();
    for (family, names, channels, pooled, numbers) in SHAPES {
        let out = folder.path().join(family.name());
        let more = ["--positive", "a lighthouse", "--negative", "fog"];
        let ran = encode(family.name(), &more, &out).expect(0);
        assert!(ran.stdout.is_empty(), "data only: {}", ran.stdout);
        assert!(ran.stderr.contains("the embeddings mean nothing"));
        let written = read(&out);
        assert_eq!(written.names(), names, "{family}");
        let builder = Conditioner::builder();
        let text = builder
            .random_weights(family, SyntheticSize::Tiny, 73)
            .unwrap();
        let guidance = text.encode_pair("a lighthouse", "fog").unwrap();
        for (prefix, side) in [
            ("", guidance.positive()),
            ("negative_", guidance.negative()),
        ] {
            let name = |name: &str| format!("{prefix}{name}");
            assert_eq!(written.shape(&name("prompt_embeds")), [1, 77, channels]);
            assert_eq!(
                written.floats(&name("prompt_embeds")),
                floats(side.context())
            );
            let Some(vector) = side.vector().unwrap() else {
                continue;
            };
            assert_eq!(written.shape(&name("pooled_prompt_embeds")), [1, pooled]);
            assert_eq!(written.shape(&name("time_ids")), [1, numbers]);
            assert_eq!(written.shape(&name("vector")), [1, pooled + 256 * numbers]);
            assert_eq!(written.floats(&name("vector")), floats(&vector));
            let want = floats(side.pooled().unwrap());
            assert_eq!(written.floats(&name("pooled_prompt_embeds")), want);
        }
    }
}

#[test]
fn metadata_say_what_the_file_was_made_from() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = [
        "--positive",
        "a \"cat\"\n猫",
        "--positive-2",
        "b",
        "--negative",
        "",
        "--profile",
    ];
    encode("sdxl", &[&more[..], &["comfyui"]].concat(), &out).expect(0);
    let metadata = read(&out).metadata;
    let want = [
        ("positive", "a \"cat\"\n猫"),
        ("positive_2", "b"),
        ("negative", ""),
        ("family", "sdxl"),
        ("profile", "comfyui"),
        ("checkpoint_hash", "random-weights/tiny/73"),
        ("crate_version", env!("CARGO_PKG_VERSION")),
        ("generator", "sd-conditioner"),
        ("random_weights", "73"),
    ];
    for (key, value) in want {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!metadata.contains_key("negative_absent") && !metadata.contains_key("negative_2"));
}

#[test]
fn absent_empty_and_given_negatives_differ() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    // Profile, negative, whether SDXL's negative is zeros.
    let cases = [
        ("diffusers", None, true),
        ("diffusers", Some(""), false),
        ("diffusers", Some("fog"), false),
        ("comfyui", None, false),
        ("comfyui", Some(""), false),
        ("a1111", None, true),
        ("a1111", Some(""), true),
        ("a1111", Some("fog"), false),
    ];
    for (profile, negative, zeros) in cases {
        let mut more = vec!["--positive", "a cat", "--profile", profile];
        more.extend(negative.into_iter().flat_map(|text| ["--negative", text]));
        encode("sdxl", &more, &out).expect(0);
        let written = read(&out);
        for name in ["negative_prompt_embeds", "negative_pooled_prompt_embeds"] {
            assert_eq!(
                written.is_zero(name),
                zeros,
                "{profile} {negative:?} {name}"
            );
        }
        let absent = written.metadata.get("negative_absent");
        assert_eq!(absent.is_some(), negative.is_none());
        assert_eq!(
            written.metadata.get("negative").map(String::as_str),
            negative
        );
    }
}

#[test]
fn clip_skip_is_counted_as_the_profile_counts() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let states = [("comfyui", "-2"), ("a1111", "2"), ("diffusers", "1")].map(|(profile, skip)| {
        let more = [
            "--positive",
            "a cat",
            "--profile",
            profile,
            "--clip-skip",
            skip,
        ];
        encode("sd1", &more, &out).expect(0);
        read(&out).floats("prompt_embeds")
    });
    assert!(states[0] == states[1] && states[1] == states[2]);
    encode("sd1", &["--positive", "a cat"], &out).expect(0);
    assert_ne!(read(&out).floats("prompt_embeds"), states[0]);
    for (profile, skip) in [
        ("comfyui", "2"),
        ("a1111", "-1"),
        ("a1111", "0"),
        ("diffusers", "9"),
    ] {
        let more = [
            "--positive",
            "a cat",
            "--profile",
            profile,
            "--clip-skip",
            skip,
        ];
        encode("sd1", &more, &out).expect(1).error();
    }
}

#[test]
fn sizes_are_in_the_unets_order() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let size = ["--positive", "a", "--size", "1216x832", "--crop", "8,16"];
    let target = ["--target-size", "640x480"];
    encode("sdxl", &[&size[..], &target[..]].concat(), &out).expect(0);
    let written = read(&out);
    let want = [832.0, 1216.0, 16.0, 8.0, 480.0, 640.0];
    assert_eq!(written.floats("time_ids"), want);
    assert_eq!(written.floats("negative_time_ids"), want);
    let cases: [(&[&str], [f32; 2]); 3] = [
        (&[], [6.0, 2.5]),
        (&["--aesthetic-score", "7"], [7.0, 2.5]),
        (&["--negative-aesthetic-score", "-1.5"], [6.0, -1.5]),
    ];
    for (scores, want) in cases {
        encode("refiner", &[&size[..], scores].concat(), &out).expect(0);
        let written = read(&out);
        assert_eq!(
            written.floats("time_ids"),
            [832.0, 1216.0, 16.0, 8.0, want[0]]
        );
        assert_eq!(written.floats("negative_time_ids")[4..], want[1..]);
    }
    let ran = encode("sd1", &size, &out).expect(0);
    assert!(
        ran.stderr
            .contains("warning: a size was given, and sd1 takes none")
    );
}

#[test]
fn two_texts_reach_two_encoders() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = [
        "--positive",
        "a",
        "--positive-2",
        "b",
        "--negative",
        "c",
        "--negative-2",
        "d",
    ];
    encode("sdxl", &[&more[..], &["--size", "512x768"]].concat(), &out).expect(0);
    let builder = Conditioner::builder();
    let text = builder
        .random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)
        .unwrap();
    let size = SizeHints::new(512, 768);
    let request = |first, second| Request::per_encoder(first, second).size(size);
    let guidance = text
        .encode_pair(request("a", "b"), request("c", "d"))
        .unwrap();
    let written = read(&out);
    assert_eq!(
        written.floats("prompt_embeds"),
        floats(guidance.positive().context())
    );
    let want = guidance.negative().vector().unwrap().unwrap();
    assert_eq!(written.floats("negative_vector"), floats(&want));
}

#[test]
fn types_are_rounded_once_and_bytes_repeat() {
    let folder = tempdir().unwrap();
    let [full, half, again, brain] =
        ["full", "half", "again", "brain"].map(|name| folder.path().join(name));
    let more = ["--positive", "a cat", "--size", "3001x1217"];
    let with = |dtype| [&more[..], &["--out-dtype", dtype]].concat();
    encode("sdxl", &more, &full).expect(0);
    encode("sdxl", &with("f16"), &half).expect(0);
    encode("sdxl", &with("f16"), &again).expect(0);
    encode("sdxl", &with("bf16"), &brain).expect(0);
    assert_eq!(
        std::fs::read(&half).unwrap(),
        std::fs::read(&again).unwrap()
    );
    let (full, half, brain) = (read(&full), read(&half), read(&brain));
    for name in SIZED {
        if name.ends_with("time_ids") {
            // 16 bits have no 3001.
            let want = [1217.0, 3001.0, 0.0, 0.0, 1217.0, 3001.0];
            assert_eq!([half.floats(name), brain.floats(name)], [want; 2]);
            continue;
        }
        assert_eq!(half.tensors[name].0, "F16", "{name}");
        assert_eq!(brain.tensors[name].0, "BF16", "{name}");
        let pairs = brain.bytes(name).as_chunks::<2>().0.iter();
        for (value, pair) in full.floats(name).iter().zip(pairs) {
            let rounded = f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
            assert!((value - rounded).abs() <= value.abs() / 256.0, "{name}");
        }
    }
}

#[test]
fn seeds_and_precisions_change_numbers() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let numbers = |arguments: &[&str]| {
        let rest = ["--positive", "a cat", "--out", out.to_str().unwrap()];
        let start = ["encode", "--family", "sd1", "--tiny", "--random-weights"];
        run(&[&start[..], arguments, &rest[..]].concat()).expect(0);
        read(&out).floats("prompt_embeds")
    };
    let plain = numbers(&[]);
    assert_eq!(numbers(&["73"]), plain);
    assert_ne!(numbers(&["74"]), plain);
    let half = numbers(&["73", "--dtype", "f16"]);
    assert_ne!(half, plain);
    let close = half.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 0.05);
    assert!(close, "f16 weights move the numbers a little");
}

#[test]
fn long_prompts_are_cut_or_made_longer() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let long = "cat ".repeat(100);
    let more = [
        "--positive",
        long.as_str(),
        "--negative",
        "fog",
        "--profile",
    ];
    let ran = encode("sd1", &[&more[..], &["diffusers"]].concat(), &out).expect(0);
    let cut = "warning: positive: 25 of 100 tokens do not fit and were cut";
    assert!(ran.stderr.contains(cut), "{}", ran.stderr);
    for profile in [Profile::ComfyUi, Profile::A1111] {
        encode("sd1", &[&more[..], &[profile.name()]].concat(), &out).expect(0);
        let written = read(&out);
        for name in PLAIN {
            assert_eq!(
                written.shape(name),
                [1, 154, 128],
                "{} {name}",
                profile.name()
            );
        }
    }
}

#[test]
fn prompts_may_begin_with_a_hyphen() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = ["--positive", "-cat", "--negative", "--no dogs", "--quiet"];
    let ran = encode("sd1", &more, &out).expect(0);
    let metadata = read(&out).metadata;
    assert_eq!(
        (metadata["positive"].as_str(), metadata["negative"].as_str()),
        ("-cat", "--no dogs")
    );
    assert!(ran.stderr.contains("mean nothing") && !ran.stderr.contains("wrote"));
}

#[test]
fn a_cleaner_can_be_chosen() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let state = |cleaner: &str| {
        let more = ["--positive", "a &amp; b", "--cleaner", cleaner];
        encode("sd1", &more, &out).expect(0);
        let written = read(&out);
        assert_eq!(written.metadata["cleaner"], cleaner);
        written.floats("prompt_embeds")
    };
    assert_eq!(state("openai"), state("hf-slow-ftfy"));
    assert_ne!(state("openai"), state("hf-fast"));
}

#[test]
fn nothing_is_left_where_nothing_can_be_written() {
    let folder = tempdir().unwrap();
    let nowhere = folder.path().join("no/such/folder/a.safetensors");
    let ran = encode("sd1", &["--positive", "a"], &nowhere).expect(1);
    assert!(ran.error().contains("no such folder"));
    let ran = encode("sd1", &["--positive", "a"], folder.path()).expect(1);
    assert!(ran.error().contains("a folder"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn devices_that_a_build_lacks_are_named() {
    use sd_conditioner::candle_core::utils::{cuda_is_available, metal_is_available};
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let cases = [
        ("cuda", "cuda", cuda_is_available()),
        ("cuda:1", "cuda", cuda_is_available()),
        ("metal", "metal", metal_is_available()),
    ];
    for (device, feature, available) in cases {
        if !available {
            let more = ["--positive", "a", "--device", device];
            let ran = encode("sd1", &more, &out).expect(1);
            assert!(ran.error().contains(&format!("--features {feature}")));
        }
    }
}

/// The next run reads what the first one kept, and says the same.
#[test]
fn a_folder_keeps_windows_between_runs() {
    let folder = tempdir().unwrap();
    let (out, kept) = (folder.path().join("out"), folder.path().join("kept"));
    let written = |negative: &str, more: &[&str]| {
        let texts = ["--positive", "a lighthouse", "--negative", negative];
        encode("sdxl", &[&texts[..], more].concat(), &out).expect(0);
        std::fs::read(&out).unwrap()
    };
    let cached = ["--cache-dir", &kept.to_string_lossy()];
    let n_files = || std::fs::read_dir(&kept).unwrap().count();
    let first = written("fog", &cached);
    assert_eq!(n_files(), 4);
    assert!(written("fog", &cached) == first && written("fog", &[]) == first);
    assert_eq!(n_files(), 4);
    assert!(written("rain", &cached) == written("rain", &[]));
    assert_eq!(n_files(), 6);
}
