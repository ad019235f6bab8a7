//! Prompts: every dialect against what its own tool computed, and what must hold for any text.

use std::fs;

use sd_conditioner::prompt::Piece;
use sd_conditioner::{Dialect, Prompt};
use serde_json::Value;

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
