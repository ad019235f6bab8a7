//! Wrong command lines, and the options that scripts rely on.

use crate::support::run;

/// A command line, its parts separated by `|`, and what standard error must say.
const WRONG: &[(&str, &str)] = &[
    ("", "Usage"),
    ("encode", "--weights"),
    ("encode|--positive|a|--out|o", "--weights"),
    ("encode|--weights|w|--out|o", "--positive TEXT is missing"),
    (
        "encode|--weights|w|--positive|a",
        "--out FILE.safetensors is missing",
    ),
    ("encode|--weights|--positive|a|--out|o", "value is required"),
    (
        "encode|--random-weights|--positive|a|--out|o",
        "--family other than auto",
    ),
    (
        "encode|--random-weights|--family|auto|--positive|a|--out|o",
        "--family other than auto",
    ),
    (
        "encode|--random-weights|x|--family|sd1|--positive|a|--out|o",
        "a seed is a whole number",
    ),
    (
        "encode|--weights|w|--random-weights|--family|sd1|--positive|a|--out|o",
        "cannot be used with",
    ),
    (
        "encode|--weights|w|--tiny|--positive|a|--out|o",
        "--tiny needs --random-weights",
    ),
    (
        "encode|--random-weights|--family|sd1|--variant|fp16|--positive|a|--out|o",
        "reads none",
    ),
    (
        "encode|--weights|w|--positive|a|--negative-2|b|--out|o",
        "--negative-2 needs --negative",
    ),
    ("encode|--weights|w|--requests|r", "--out-dir"),
    (
        "encode|--weights|w|--positive|a|--out|o|--resume",
        "--requests",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--pack|2GB",
        "--requests",
    ),
    (
        "encode|--weights|w|--requests|r|--out-dir|d|--pack|many",
        "such as 2GB",
    ),
    (
        "encode|--weights|w|--requests|r|--out-dir|d|--shard|3/2",
        "I from 1 to N",
    ),
    (
        "encode|--weights|w|--requests|r|--out-dir|d|--batch-windows|0",
        "'--batch-windows <N>'",
    ),
    ("encode|--weights|w|--positive|a|--out-dir|d", "--requests"),
    (
        "encode|--weights|w|--requests|r|--out-dir|d|--out|o",
        "cannot be used with",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--family|sd3",
        "possible values: auto, sd1, sd2, sdxl, refiner",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--profile|x",
        "possible values: diffusers, comfyui, a1111",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--cleaner|x",
        "possible values: openai, open-clip",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--dialect|x",
        "possible values: plain, comfyui, a1111, compel",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--emphasis|x",
        "expected one of comfyui, a1111-original",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--split|comma+merge",
        "expected one of truncate, groups",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--equal-lengths|x",
        "possible values: empty-windows, repeat, zeros, last-row",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--gelu|x",
        "possible values: own, tanh",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--steps|0",
        "expected 1 to 2000",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--hires-steps|5",
        "--steps",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--size|1024",
        "expected WIDTHxHEIGHT",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--size|0x8",
        "0 pixels",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--target-size|8xb",
        "not a number of pixels",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--crop|1",
        "expected X,Y",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--clip-skip|two",
        "invalid digit",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--aesthetic-score|nan",
        "score of NaN",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--dtype|f64",
        "possible values: f32, f16, bf16",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--out-dtype|f8",
        "possible values: f32, f16, bf16",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--device|gpu",
        "expected cpu, cuda, cuda:N or metal",
    ),
    (
        "encode|--weights|w|--positive|a|--positive|b|--out|o",
        "cannot be used multiple times",
    ),
    (
        "encode|--weights|w|--positive|a|--out|o|--seed|1",
        "unexpected argument",
    ),
    ("tokens", "--positive TEXT is missing"),
    (
        "tokens|--positive|a|--negative-2|b",
        "--negative-2 needs --negative",
    ),
    (
        "tokens|--positive|a|--explain|--json",
        "cannot be used with",
    ),
    ("tokens|--positive|a|--html", "value is required"),
    (
        "tokens|--positive|a|--emphasis|adv:mean:x",
        "'--emphasis <EMPHASIS>'",
    ),
    ("tokens|--positive|a|--split|x", "words, brutal"),
    ("tokens|--positive|a|--steps|many", "'--steps <N>'"),
    ("compare", "<PROMPT>"),
    ("compare|a|b", "unexpected argument"),
    ("compare|a|--profile|a1111", "unexpected argument"),
    ("compare|a|--tiny", "--tiny needs --random-weights"),
    ("compare|a|--random-weights", "--family other than auto"),
    (
        "compare|a|--weights|w|--random-weights",
        "cannot be used with",
    ),
    ("inspect", "FILE"),
    ("pull", "NAME"),
    ("bench", "--weights"),
    ("bench|--tiny|--weights|w", "--tiny needs --random-weights"),
    ("bench|--random-weights", "--family other than auto"),
    (
        "bench|--random-weights|--family|sd1|--windows|0",
        "'--windows <N>'",
    ),
    (
        "bench|--random-weights|--family|sd1|--threads|0",
        "'--threads <N>'",
    ),
    (
        "bench|--random-weights|--family|sd1|--runs|0",
        "'--runs <N>'",
    ),
    ("nonsense", "unrecognized subcommand"),
];

#[test]
fn wrong_command_lines_are_explained() {
    for (line, want) in WRONG {
        let arguments: Vec<&str> = line.split('|').filter(|part| !part.is_empty()).collect();
        let ran = run(&arguments);
        assert_eq!(ran.code, 2, "{line}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(want),
            "{line}: wanted {want}: {}",
            ran.stderr
        );
        assert!(ran.stdout.is_empty(), "{line}");
    }
}

/// What other programs are written against.
const FIXED: &[(&str, &[&str])] = &[
    (
        "encode",
        &[
            "--weights <NAME or PATH>...",
            "--random-weights [<SEED>]",
            "--tiny",
            "--family <FAMILY>",
            "--positive <TEXT>",
            "--positive-2 <TEXT>",
            "--negative <TEXT>",
            "--negative-2 <TEXT>",
            "--profile <PROFILE>",
            "--clip-skip <N>",
            "--size <WxH>",
            "--crop <X,Y>",
            "--target-size <WxH>",
            "--aesthetic-score <S>",
            "--negative-aesthetic-score <S>",
            "--dtype <DTYPE>",
            "--out-dtype <OUT_DTYPE>",
            "--device <DEVICE>",
            "--out <FILE.safetensors>",
            "--requests <FILE.jsonl>",
            "--out-dir <DIR>",
            "--resume",
            "--shard <I/N>",
            "--pack <SIZE>",
            "--batch-windows <N>",
            "--variant <VARIANT>",
            "--cleaner <CLEANER>",
            "--dialect <DIALECT>",
            "--emphasis <EMPHASIS>",
            "--split <SPLIT>",
            "--equal-lengths <EQUAL_LENGTHS>",
            "--gelu <GELU>",
            "--steps <N>",
            "--hires-steps <M>",
            "--embeddings <DIR>",
            "--lora <FILE[:STRENGTH[:STRENGTH_2]]>",
            "--loras <DIR>",
            "--quiet",
        ],
    ),
    (
        "tokens",
        &[
            "--weights",
            "--family",
            "--positive <TEXT>",
            "--profile",
            "--dialect <DIALECT>",
            "--emphasis <EMPHASIS>",
            "--split <SPLIT>",
            "--steps <N>",
            "--hires-steps <M>",
            "--embeddings <DIR>",
            "--loras <DIR>",
            "--explain",
            "--html <FILE>",
            "--json",
        ],
    ),
    (
        "compare",
        &[
            "<PROMPT>",
            "--weights <NAME or PATH>...",
            "--random-weights [<SEED>]",
            "--tiny",
            "--family <FAMILY>",
            "--embeddings <DIR>",
            "--lora <FILE[:STRENGTH[:STRENGTH_2]]>",
            "--loras <DIR>",
            "--device <DEVICE>",
            "--json",
        ],
    ),
    ("inspect", &["<FILE>", "--json"]),
    ("pull", &["<NAME>"]),
    (
        "bench",
        &[
            "--weights <NAME or PATH>...",
            "--random-weights [<SEED>]",
            "--tiny",
            "--family <FAMILY>",
            "--windows <N>",
            "--threads <N>",
            "--runs <N>",
            "--batch <N>",
            "--dtype <DTYPE>",
            "--device <DEVICE>",
            "--json",
        ],
    ),
    ("list", &[]),
];

#[test]
fn fixed_options_are_there() {
    for (command, options) in FIXED {
        let help = run(&[command, "--help"]).expect(0).stdout;
        for option in *options {
            assert!(help.contains(option), "{command}: {option}: {help}");
        }
    }
    let version = run(&["--version"]).expect(0).stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")));
}

/// What comes from outside is shown, and a terminal does not act on it.
#[test]
fn nothing_from_outside_reaches_the_terminal_raw() {
    let folder = tempfile::tempdir().unwrap();
    let lines = concat!(
        r#"{"id":"a","\u001b[2Jkey":1}"#,
        "\n",
        r#"{"id":"b","positive":"a","profile":"\u001b]0;title\u0007"}"#,
        "\n",
        r#"{"id":"c","positive":"a","loras":[{"file":"\u009b31m\u001b[H.safetensors"}]}"#,
    );
    let ran = crate::requests::requests(folder.path(), "sd1", lines, &[]).expect(1);
    let acts = |sign: char| sign.is_control() && sign != '\n';
    assert!(!ran.stderr.contains(acts), "{:?}", ran.stderr);
    assert!(ran.stderr.contains("\\u001b[2Jkey"), "{}", ran.stderr);
    let path = folder.path().join("a\u{1b}[2J.safetensors");
    crate::support::embedding(&path, 768);
    let ran = run(&["inspect", path.to_str().unwrap()]).expect(0);
    assert!(!ran.stdout.contains(acts), "{:?}", ran.stdout);
}

#[test]
fn errors_say_what_to_do_instead() {
    let told = |words: &[&str], code: i32, parts: &[&str]| {
        let said = run(words).expect(code).stderr;
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    let encode = ["encode", "--out", "x.safetensors"];
    let seeded = |seed: &'static str| [&encode[..], &["--random-weights", seed]].concat();
    told(
        &seeded("hello"),
        2,
        &["a seed is a whole number", "--positive"],
    );
    told(
        &seeded("3"),
        2,
        &["--family", "Usage: sd-conditioner encode"],
    );
    told(&["inspect", "sdxl"], 1, &["pull sdxl"]);
    told(
        &["convert", "sdxl", "x", "--layout", "diffusers"],
        1,
        &["pull sdxl"],
    );
}
