//! Rules of the house that the compiler cannot check. ARCHITECTURE.md explains them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and every room it may name after `crate::`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("stop", &["error"]),
    ("threads", &["error"]),
    ("prompt", &["error"]),
    ("tokens", &["prompt", "error"]),
    ("pages", &[]),
    ("mapped", &["error"]),
    ("transfers", &["error"]),
    (
        "weights",
        &["error", "stop", "threads", "pages", "mapped", "transfers"],
    ),
    ("kernels", &["error", "pages", "mapped", "transfers"]),
    (
        "encoder",
        &[
            "tokens",
            "weights",
            "kernels",
            "transfers",
            "threads",
            "error",
        ],
    ),
    (
        "conditioning",
        &["prompt", "tokens", "weights", "encoder", "kernels", "error"],
    ),
    (
        "profile",
        &[
            "prompt",
            "tokens",
            "weights",
            "encoder",
            "conditioning",
            "error",
        ],
    ),
    ("storage", &["conditioning", "weights", "error"]),
    ("hub", &["weights", "stop", "error"]),
    (
        "conditioner",
        &[
            "prompt",
            "tokens",
            "weights",
            "kernels",
            "encoder",
            "conditioning",
            "profile",
            "hub",
            "transfers",
            "threads",
            "stop",
            "error",
        ],
    ),
    (
        "graph",
        &[
            "prompt",
            "tokens",
            "weights",
            "conditioning",
            "profile",
            "conditioner",
            "stop",
            "error",
        ],
    ),
];

/// Lines a source file may have.
const LONGEST_FILE: usize = 400;

/// Lines a function may have outside tests, from its name to its last brace; 25 are the aim.
const LONGEST_FUNCTION: usize = 40;

/// Everything that is written in Rust.
const FOLDERS: [&str; 7] = [
    "src",
    "cli/src",
    "cli/tests",
    "tests",
    "examples",
    "benches",
    "fuzz",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// `src/tokens/bpe.rs` and `src/tokens.rs` are in room `tokens`.
fn room_of(file: &Path) -> String {
    let second = file
        .components()
        .nth(1)
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    second.trim_end_matches(".rs").to_owned()
}

fn code_of(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |mut code, line| {
        writeln!(code, "{line}").unwrap();
        code
    })
}

/// True when `code` reaches into `room`: `crate::room` or `crate::{.., room::..}`.
fn names_room(code: &str, room: &str) -> bool {
    let direct = code.match_indices("crate::").any(|(at, _)| {
        let word: String = code[at + 7..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        word == room
    });
    direct
        || code.split("crate::{").skip(1).any(|rest| {
            let group = rest.split(';').next().unwrap_or("");
            group
                .split([',', '{', '}', ' '])
                .any(|word| word.split("::").next() == Some(room))
        })
}

#[test]
fn rooms_import_only_downwards() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let (room, code) = (room_of(&file), code_of(&text));
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
            assert_eq!(room, "lib", "{}: an unknown room", file.display());
            continue;
        };
        let others = MAY_IMPORT.iter().map(|(other, _)| *other);
        for other in others.filter(|other| *other != room && !allowed.contains(other)) {
            if names_room(&code, other) {
                wrong.push(format!(
                    "{}: `{room}` may not use `crate::{other}`",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The rows of ARCHITECTURE.md's table of rooms, and what each may name.
fn table() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let [_, room, _, named, _] = line.split('|').collect::<Vec<_>>()[..] else {
            return None;
        };
        let room = room.trim().strip_prefix('`')?.strip_suffix('`')?;
        let named = named.split(',').map(|one| one.trim().to_owned());
        let mut named: Vec<String> = named.filter(|one| one != "–").collect();
        named.sort();
        Some((room.to_owned(), named))
    });
    rows.collect()
}

#[test]
fn the_table_of_rooms_is_what_is_checked() {
    let table = table();
    assert!(table.iter().any(|(room, _)| room == "cli/"), "{table:?}");
    for (room, allowed) in MAY_IMPORT {
        let mut allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        allowed.sort();
        let row = (room.to_string(), allowed);
        assert!(table.contains(&row), "ARCHITECTURE.md does not say {row:?}");
    }
}

#[test]
fn the_import_check_can_fail() {
    assert!(names_room("use crate::weights::Family;", "weights"));
    assert!(names_room(
        "use crate::{error::Result, weights::Family};",
        "weights"
    ));
    assert!(!names_room("use crate::weights_of_gold;", "weights"));
}

#[test]
fn text_rooms_know_no_tensors() {
    for (file, text) in sources("src") {
        if matches!(room_of(&file).as_str(), "prompt" | "tokens") {
            assert!(
                !code_of(&text).contains("candle"),
                "{}: no candle here",
                file.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_places() {
    for (file, text) in sources("src") {
        let allowed = [
            "src/kernels/cpu",
            "src/kernels/cuda",
            "src/pages.rs",
            "src/mapped.rs",
        ];
        if !allowed.iter().any(|place| file.starts_with(place)) {
            assert!(
                !code_of(&text).contains("unsafe "),
                "{}: unsafe",
                file.display()
            );
        }
    }
}

#[test]
fn features_of_devices_stand_at_one_door() {
    for (file, text) in sources("src") {
        if file != Path::new("src/kernels/mod.rs") {
            assert!(
                !code_of(&text).contains("feature = \"cuda\""),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn the_library_reads_no_environment_and_prints_nothing() {
    for (file, text) in sources("src") {
        let code = code_of(&text);
        for word in ["std::env::", "env::var", "println!", "eprintln!"] {
            assert!(!code.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for (file, text) in FOLDERS.into_iter().flat_map(sources) {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{}: {lines} lines", file.display());
    }
}

/// The functions of a text with their lines, by the indentation that rustfmt gives them.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = lines.iter().enumerate().filter_map(|(first, line)| {
        let (before, name) = line.split_once("fn ")?;
        let indentation = &before[..before.len() - before.trim_start().len()];
        let words = before.split_whitespace();
        let plain = |word: &str| {
            word.starts_with("pub")
                || ["const", "unsafe", "super)", "super::super)"].contains(&word)
        };
        let is_one = words.into_iter().all(plain) && !line.ends_with(';') && !line.ends_with('}');
        let name = name.split(['(', '<']).next().filter(|_| is_one)?;
        let end = format!("{indentation}}}");
        let length = lines[first..].iter().position(|line| **line == end)?;
        Some((name, length + 1))
    });
    begins.collect()
}

#[test]
fn functions_do_one_job() {
    let mut seen = 0;
    let mut long = Vec::new();
    for (file, text) in ["src", "cli/src", "examples", "benches"]
        .into_iter()
        .flat_map(sources)
    {
        for (name, lines) in functions(&text) {
            seen += 1;
            if lines > LONGEST_FUNCTION {
                long.push(format!("{}: {name} has {lines} lines", file.display()));
            }
        }
    }
    assert!(seen > 1000, "{seen} functions were found");
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn functions_are_measured_whole() {
    let text = "impl A {\n    pub(super) fn one(\n        self,\n    ) -> u8 {\n        1\n    }\n}\nfn two() {}\nfn three() {\n}\n";
    assert_eq!(functions(text), [("one", 5), ("three", 2)]);
}
