#![expect(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "goldens hold what the tests read"
)]
//! Prompts: every dialect against what its own tool computed, and what must hold for any text.

use std::fs;

use sd_conditioner::prompt::comfy::{EmbeddingPiece, embedding_pieces, retry_name};
use sd_conditioner::prompt::compel::{Conjunction, Part, Swap, SwapOptions};
use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::prompt::{NoteKind, Piece, comments, compose, networks};
use sd_conditioner::{Dialect, Prompt};
use serde_json::{Value, json};

mod any_text;

/// The dialects whose results are a plain list, and their columns in the goldens.
const FLAT: &[(Dialect, &str)] = &[
    (Dialect::A1111, "a1111"),
    (Dialect::ComfyUi, "comfyui"),
    (Dialect::SdCpp, "sdcpp"),
    (Dialect::LpwSd, "lpw_sd"),
    (Dialect::LpwSdxl, "lpw_sdxl"),
    (Dialect::Kohya, "kohya"),
];

#[test]
fn flat_dialects_equal_their_tools() {
    let cases = golden("emphasis");
    assert_eq!(cases.len(), 277);
    for (dialect, column) in FLAT {
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(|case| difference(case, *dialect, column))
            .collect();
        assert!(
            wrong.is_empty(),
            "{column}: {} differ\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

fn difference(case: &Value, dialect: Dialect, column: &str) -> Option<String> {
    let input = case["input"].as_str().unwrap();
    let prompt = Prompt::parse(input, dialect);
    let expected = &case[column];
    let is_same = match expected.as_array() {
        None => Prompt::parse_strict(input, dialect).is_err(),
        Some(expected) => {
            Prompt::parse_strict(input, dialect).is_ok()
                && expected.len() == prompt.pieces().len()
                && expected
                    .iter()
                    .zip(prompt.pieces())
                    .all(|(a, b)| is_piece(a, b, dialect))
        }
    };
    (!is_same).then(|| format!("{input:?}: expected {expected}, got {:?}", prompt.pieces()))
}

/// True if `expected`, a pair of text and weight, is `piece` to the last bit.
fn is_piece(expected: &Value, piece: &Piece, dialect: Dialect) -> bool {
    let text = expected[0].as_str().unwrap();
    let weight = number(&expected[1]);
    match piece {
        Piece::Text {
            text: found,
            strength,
            ..
        } if dialect == Dialect::SdCpp => {
            // The file has nine digits of an f32, which name exactly one.
            let single = weight.to_string().parse::<f32>().unwrap();
            text == found && f64::from(single).to_bits() == strength.get().to_bits()
        }
        Piece::Text {
            text: found,
            strength,
            ..
        } => {
            text == found
                && (weight == strength.get() || weight.is_nan() && strength.get().is_nan())
        }
        // sd-scripts pays no attention to the weight of a break.
        Piece::Break { .. } => text == "BREAK" && (weight == -1.0 || dialect == Dialect::Kohya),
        other => panic!("no parser makes {other:?}"),
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn golden(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/tests/golden/prompt/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}

#[test]
fn schedules_equal_a1111() {
    let cases = golden("schedules");
    assert_eq!(cases.len(), 68);
    let passes = [
        ("steps10", Pass::First { steps: 10 }),
        (
            "steps10_hires20",
            Pass::Hires {
                base: 10,
                steps: 20,
            },
        ),
        ("steps10_old", Pass::Old { steps: 10 }),
    ];
    for case in &cases {
        let input = case["input"].as_str().unwrap();
        for (column, pass) in passes {
            let schedule = Schedule::parse(input, pass);
            let entries = schedule.entries().iter();
            let found: Value = entries
                .map(|entry| json!([entry.until, entry.text]))
                .collect();
            assert_eq!(found, case[column], "{column} of {input:?}");
        }
    }
}

#[test]
fn compositions_equal_a1111() {
    let cases = golden("and");
    assert_eq!(cases.len(), 32);
    for case in &cases {
        let input = case["input"].as_str().unwrap();
        let parts = compose::split(input);
        let expected = case["result"].as_array().unwrap();
        assert_eq!(parts.len(), expected.len(), "{input:?}");
        for (part, expected) in parts.iter().zip(expected) {
            let found = (part.text.as_str(), part.weight.get());
            assert_eq!(
                found,
                (expected[0].as_str().unwrap(), number(&expected[1])),
                "{input:?}"
            );
            assert_eq!(part.text, input[part.span.clone()]);
        }
    }
}

#[test]
fn schedule_is_looked_up_as_the_sampler_does() {
    let schedule = Schedule::parse("[a:b:3]", Pass::First { steps: 10 });
    let shown: String = (0..12)
        .map(|calls| schedule.at(calls).text.as_str())
        .collect();
    assert_eq!(shown, "aaaabbbbbbba");
}

#[test]
fn compel_equals_compel() {
    for case in &golden("emphasis") {
        let input = case["input"].as_str().unwrap();
        let expected = &case["compel"];
        let is_refused = Prompt::parse_strict(input, Dialect::Compel).is_err();
        assert_eq!(is_refused, !expected["error"].is_null(), "{input:?}");
        if !is_refused {
            let prompt = Prompt::parse(input, Dialect::Compel);
            assert_eq!(
                conjunction(prompt.composition().unwrap()),
                *expected,
                "{input:?}"
            );
        }
    }
}

/// As the golden file writes it.
fn conjunction(found: &Conjunction) -> Value {
    let parts = found
        .parts
        .iter()
        .enumerate()
        .map(|(index, (part, _))| match part {
            Part::Flat(pieces) => json!({ "prompt": flat(pieces, index, &found.swaps) }),
            Part::Blend {
                prompts,
                weights,
                normalize,
            } => {
                let prompts = prompts
                    .iter()
                    .map(|pieces| json!({ "prompt": texts(pieces) }));
                let weights = weights.iter().map(|weight| decimal(*weight));
                json!({
                    "blend": prompts.collect::<Value>(),
                    "weights": weights.collect::<Value>(),
                    "normalize": normalize,
                })
            }
        });
    let weights = found.parts.iter().map(|(_, weight)| decimal(*weight));
    let loras = found
        .loras
        .iter()
        .map(|lora| json!([lora.name, decimal(lora.weight)]));
    json!({
        "parts": parts.collect::<Value>(),
        "weights": weights.collect::<Value>(),
        "loras": loras.collect::<Value>(),
    })
}

/// Pieces, with swaps in the places of their originals.
fn flat(pieces: &[Piece], part: usize, swaps: &[Swap]) -> Value {
    let mut listed = Vec::new();
    let mut index = 0;
    while index < pieces.len() {
        let here = |swap: &&Swap| swap.part == part && swap.pieces.start == index;
        if let Some(swap) = swaps.iter().find(here) {
            let SwapOptions {
                s_start,
                s_end,
                t_start,
                t_end,
            } = swap.options;
            listed.push(json!({ "swap": {
                "original": texts(&pieces[swap.pieces.clone()]),
                "edited": texts(&swap.edited),
                "options": {
                    "s_start": decimal(s_start), "s_end": decimal(s_end),
                    "t_start": decimal(t_start), "t_end": decimal(t_end),
                },
            }}));
            index = swap.pieces.end;
        } else {
            listed.push(texts(&pieces[index..=index])[0].clone());
            index += 1;
        }
    }
    listed.into()
}

fn texts(pieces: &[Piece]) -> Value {
    let pair = |piece: &Piece| match piece {
        Piece::Text { text, strength, .. } => json!([text, decimal(strength.get())]),
        other => panic!("compel makes no {other:?}"),
    };
    pieces.iter().map(pair).collect()
}

/// A number as Python prints it.
fn decimal(value: f64) -> Value {
    format!("{value:?}").into()
}

#[test]
fn comments_go_with_their_lines() {
    for (text, expected) in [
        ("# comment\na", "\na"),
        ("a\n# b\nc", "a\nc"),
        ("a # b", "a \n"),
        ("a\n#b\n#c\nd", "a\n\nd"),
        ("a # b\nc", "a \nc"),
    ] {
        assert_eq!(comments::strip(text), expected, "{text:?}");
    }
}

#[test]
fn extra_networks_are_cut_out() {
    let (text, networks) = networks::extract("a <lora:film:0.8:dyn=8>, <b>, <hypernet:x> <c:>");
    assert_eq!(text, "a , <b>,  <c:>");
    assert_eq!(
        networks[0].positional().collect::<Vec<_>>(),
        ["film", "0.8"]
    );
    assert_eq!(
        (networks[0].named("dyn"), networks[1].kind.as_str()),
        (Some("8"), "hypernet")
    );
}

#[test]
fn embeddings_are_cut_out_of_a_piece() {
    let pieces = embedding_pieces("x,embedding:no embedding: a, b\nembedding:c", 5..48);
    let names = pieces.iter().filter_map(|piece| match piece {
        EmbeddingPiece::Embedding { name, rest, .. } => Some((name.as_str(), rest.as_str())),
        _ => None,
    });
    assert_eq!(names.collect::<Vec<_>>(), [("a,", "b"), ("c", "")]);
    assert_eq!(retry_name("a,", "b"), Some(("a".into(), ", b".into())));
    assert_eq!(retry_name(",one", ""), Some(("one".into(), "e ".into())));
    assert_eq!(retry_name("one", ""), None);
}

#[test]
fn notes_tell_what_was_guessed() {
    for (dialect, text, kind, span) in [
        (Dialect::A1111, "a (b", NoteKind::Unbalanced, 2..3),
        (Dialect::A1111, "a) b", NoteKind::Unbalanced, 1..2),
        (Dialect::A1111, "(a BREAK b:1.2)", NoteKind::Quirk, 2..9),
        (Dialect::A1111, "(a:9)", NoteKind::Strength, 1..2),
        (Dialect::A1111, "(a:.)", NoteKind::ReferenceError, 3..4),
        (Dialect::ComfyUi, "a) (b:1.2)", NoteKind::Unbalanced, 1..2),
        (Dialect::ComfyUi, "(a:inf)", NoteKind::Strength, 1..2),
        (Dialect::SdCpp, "12:30)", NoteKind::Quirk, 2..6),
        (
            Dialect::Compel,
            r#"("a").blend() c"#,
            NoteKind::ReferenceError,
            14..15,
        ),
        (Dialect::Compel, "()", NoteKind::Quirk, 0..2),
        (
            Dialect::Compel,
            "(a).swap(b (c).swap(d))",
            NoteKind::ReferenceError,
            0..23,
        ),
    ] {
        let prompt = Prompt::parse(text, dialect);
        let found = prompt
            .notes()
            .iter()
            .any(|note| note.kind == kind && note.span == span);
        assert!(found, "{text:?}: {:?}", prompt.notes());
    }
}

#[test]
fn comfy_counts_parentheses_below_zero() {
    // One more `(` than is closed makes up for the stray `)`; groups work again after it.
    let prompt = Prompt::parse("a) (b (c:1.2) d", Dialect::ComfyUi);
    assert_eq!(
        texts(prompt.pieces()),
        json!([["a) (b ", "1.0"], ["c", "1.2"], [" d", "1.0"]])
    );
}
