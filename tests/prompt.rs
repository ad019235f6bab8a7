//! Prompts: every dialect against what its own tool computed, and what must hold for any text.

use std::fs;

use sd_conditioner::prompt::compel::{Conjunction, Part, Swap, SwapOptions};
use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::prompt::{Piece, compose};
use sd_conditioner::{Dialect, Prompt};
use serde_json::{Value, json};

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
