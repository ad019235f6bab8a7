//! Notes on standard error: what, where, and the text that is meant; they never fail a command.

use tempfile::tempdir;

use crate::support::{encode, run};

/// Profile, positive, negative, the side and a part of what is told.
const TOLD: &[[&str; 5]] = &[
    [
        "a1111",
        "a (cat",
        "",
        "positive",
        "(unbalanced at 2..3: `(`)",
    ],
    [
        "a1111",
        "a",
        "fog (cat",
        "negative",
        "(unbalanced at 4..5: `(`)",
    ],
    [
        "a1111",
        NETWORK,
        "",
        "positive",
        "(quirk at 6..16: `<lora:x:1>`)",
    ],
    ["a1111", NETWORK, "", "positive", "(strength at "],
    ["a1111", "(a:1.2.3)", "", "positive", "(reference_error at "],
    [
        "a1111",
        "a [b:c:0.5]",
        "",
        "positive",
        "(quirk at 0..11: `a [b:c:0.5]`)",
    ],
    [
        "comfyui",
        "a embedding:none",
        "",
        "positive",
        "(unknown_embedding at ",
    ],
];

const NETWORK: &str = "a # b\n<lora:x:1> (猫:9)";

#[test]
fn notes_say_kind_position_and_text() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    for [profile, positive, negative, side, want] in TOLD {
        let texts = ["--positive", positive, "--negative", negative];
        let ran = encode(
            "sdxl",
            &[&texts[..], &["--profile", profile]].concat(),
            &out,
        )
        .expect(0);
        let start = format!("warning: {side}: ");
        let told = |line: &&str| line.starts_with(&start) && line.contains(want);
        let found = ran.stderr.lines().filter(told).count();
        assert_eq!(found, 1, "{positive:?}: {want}: {}", ran.stderr);
    }
}

#[test]
fn two_texts_keep_their_notes_apart() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = [
        "--positive",
        "a b c",
        "--positive-2",
        "dog (",
        "--profile",
        "a1111",
    ];
    let ran = encode("sdxl", &more, &out).expect(0);
    assert!(ran.stderr.contains("at 4..5: `(`"), "{}", ran.stderr);
}

#[test]
fn lengths_that_cannot_be_one_are_told_once() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let long = "cat ".repeat(400);
    let more = [
        "--positive",
        &long,
        "--negative",
        "a",
        "--profile",
        "comfyui",
    ];
    let ran = encode("sd1", &more, &out).expect(0);
    assert_eq!(ran.stderr.matches("(length)").count(), 1, "{}", ran.stderr);
}

#[test]
fn notes_of_schedules_name_the_text_of_the_step() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = ["--profile", "a1111", "--steps", "4", "--positive"];
    let with = |prompt| {
        let ran = encode("sd1", &[&more[..], &[prompt]].concat(), &out).expect(0);
        ran.stderr
    };
    let told = with("a [cat:(dog:0.5]");
    assert!(
        told.contains("grammar refuses") || told.contains("unbalanced"),
        "{told}"
    );
    let told = with("a <lora:x:1> [cat:(dog:9):0.5]");
    assert!(told.contains("(quirk at 2..12: `<lora:x:1>`"), "{told}");
    assert!(
        told.contains("(strength at ") && told.contains(" in `a  (dog:9)`)"),
        "{told}"
    );
}

/// A file of the cache folder that cannot be used is said; the window is encoded.
#[test]
fn a_damaged_cache_is_said_and_changes_nothing() {
    let folder = tempdir().unwrap();
    let (out, kept) = (folder.path().join("out"), folder.path().join("kept"));
    let run = || {
        let cached = ["--positive", "a", "--cache-dir", &kept.to_string_lossy()];
        let ran = encode("sd1", &cached, &out).expect(0);
        (std::fs::read(&out).unwrap(), ran.stderr)
    };
    let (first, told) = run();
    assert!(!told.contains("cache folder"), "{told}");
    for file in std::fs::read_dir(&kept).unwrap() {
        std::fs::write(file.unwrap().path(), "cut").unwrap();
    }
    let (second, told) = run();
    assert!(second == first);
    let warning = "warning: 2 times a file of the cache folder could not be written or read";
    assert!(told.contains(warning), "{told}");
    assert!(!run().1.contains("cache folder"));
}

/// Neither time nor memory grows with the square of their number, and nobody reads all of them.
#[test]
fn many_notes_are_counted() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let text = "(".repeat(60_000);
    let said = run(&[
        "encode",
        "--random-weights",
        "--tiny",
        "--family",
        "sd1",
        "--profile",
        "a1111",
        "--positive",
        &text,
        "--out",
        out.to_str().unwrap(),
    ])
    .expect(0);
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert!(lines.len() < 60, "{}", lines.len());
    assert!(
        said.stderr.contains("and 59950 more notes"),
        "{}",
        said.stderr
    );
}
