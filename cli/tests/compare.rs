//! `compare`: how the profiles read one prompt, and how near their results are.

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{embedding, floats, run};

const PROMPT: &str = "a (cat:1.4) BREAK [dog]";

fn json_of(arguments: &[&str]) -> Value {
    let ran = run(&[&["compare", "--json"], arguments].concat()).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn profile<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let profiles = shown["profiles"].as_array().unwrap();
    profiles.iter().find(|one| one["profile"] == name).unwrap()
}

#[test]
fn every_profile_shows_its_pieces_strengths_and_windows() {
    let shown = json_of(&[PROMPT, "--family", "sdxl"]);
    assert_eq!(
        (&shown["family"], &shown["text"]),
        (&json!("sdxl"), &json!(PROMPT))
    );
    assert!(shown["cosines"].is_null());
    let names: Vec<&Value> = shown["profiles"].as_array().unwrap().iter().collect();
    let names: Vec<&str> = names
        .iter()
        .map(|one| one["profile"].as_str().unwrap())
        .collect();
    assert_eq!(names, Profile::ALL.map(Profile::name));
    let pieces = |name: &str| {
        let encoder = &profile(&shown, name)["encoders"][1];
        let pieces = encoder["texts"][0]["pieces"].as_array().unwrap();
        let pieces = pieces.iter();
        let pieces = pieces.map(|one| json!([one["kind"], one["text"], one["strength"]]));
        (encoder["windows"].clone(), pieces.collect::<Vec<_>>())
    };
    let plain = (json!(1), vec![json!(["text", PROMPT, 1.0])]);
    assert_eq!(pieces("diffusers"), plain);
    assert_eq!(pieces("plain"), plain);
    let comfy = [["a ", "1"], ["cat", "1.4"], [" BREAK [dog]", "1"]]
        .map(|[text, strength]| json!(["text", text, strength.parse::<f64>().unwrap()]));
    assert_eq!(pieces("comfyui"), (json!(1), comfy.to_vec()));
    let (windows, a1111) = pieces("a1111");
    assert_eq!(windows, 2);
    assert!(a1111.contains(&json!(["break", "", 1.0])), "{a1111:?}");
    let last = a1111.last().unwrap();
    let strength = last[2].as_f64().unwrap();
    assert_eq!(last[1], "dog");
    assert!((strength - 1.0 / 1.1).abs() < 1e-12, "{strength}");
    assert_eq!(profile(&shown, "compel")["dialect"], "compel");
    assert_eq!(profile(&shown, "sd-cpp")["emphasis"], "sd-cpp");
}

#[test]
fn people_read_a_line_for_each_profile() {
    let ran = run(&["compare", "a (cat:1.5) ["]).expect(0);
    let want = "\
sd1: `a (cat:1.5) [`

profile    windows  ids      pieces
diffusers  1        9        `a (cat:1.5) [`
comfyui    1        3        `a ` `cat`×1.5 ` [`
a1111      1        2        `a ` `cat`×1.5 ` `
           note: never closed; it reaches to the end of the prompt (unbalanced at 12..13)
";
    assert!(ran.stdout.starts_with(want), "{}", ran.stdout);
    assert!(!ran.stdout.contains("cosine") && !ran.stdout.contains('\u{1b}'));
}

#[test]
fn cosines_are_those_of_the_conditionings() {
    let long = format!("{PROMPT}, {}", "one, two. ".repeat(30));
    for family in [Family::Sd1, Family::Sdxl] {
        let weights = [
            "--random-weights",
            "11",
            "--tiny",
            "--family",
            family.name(),
        ];
        let shown = json_of(&[&[long.as_str()], &weights[..]].concat());
        let text = Conditioner::builder()
            .random_weights(family, SyntheticSize::Tiny, 11)
            .unwrap();
        let all = Profile::ALL.map(|profile| {
            let made = text.encode(Request::new(&long).profile(profile)).unwrap();
            let pooled = made.pooled().map(floats).unwrap_or_default();
            [floats(made.context()), pooled]
        });
        for (index, key) in ["context", "pooled"].into_iter().enumerate() {
            if family == Family::Sd1 && key == "pooled" {
                assert!(shown["cosines"][key].is_null());
                continue;
            }
            for (row, a) in all.iter().enumerate() {
                for (column, b) in all.iter().enumerate() {
                    let found = shown["cosines"][key][row][column].as_f64().unwrap();
                    let want = cosine(&a[index], &b[index]);
                    assert!((found - want).abs() < 1e-6, "{family} {key} {row} {column}");
                }
            }
        }
        let found = shown["cosines"]["context"][0][1].as_f64().unwrap();
        assert!(
            found < 0.999,
            "profiles that differ are told apart: {found}"
        );
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let both = a.len().min(b.len());
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        let pairs = x[..both].iter().zip(&y[..both]);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn matrices_are_shown_to_people_too() {
    let weights = ["--random-weights", "--tiny", "--family", "refiner"];
    let ran = run(&[&["compare", ""], &weights[..]].concat()).expect(0);
    for part in [
        "cosine of the hidden states",
        "cosine of the pooled vectors",
        "  1.000000",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("mean nothing"));
}

#[test]
fn embeddings_are_found_in_each_profiles_way() {
    let folder = tempdir().unwrap();
    embedding(&folder.path().join("style.safetensors"), 768);
    let flags = [
        "embedding:style",
        "--embeddings",
        folder.path().to_str().unwrap(),
    ];
    let shown = json_of(&flags);
    let tokens = |name: &str| profile(&shown, name)["encoders"][0]["tokens"].clone();
    // ComfyUI takes prefix and name; A1111 the name alone, and leaves `embed`, `ding` and `:`.
    assert_eq!((tokens("comfyui"), tokens("a1111")), (json!(1), json!(4)));
    let ran = run(&["compare", "a", "--embeddings", "/no/such/folder"]).expect(1);
    assert!(ran.error().contains("/no/such/folder"));
}

/// What says how to compute would be passed over in silence.
#[test]
fn how_to_compute_needs_weights() {
    for more in [
        ["--device", "cuda"],
        ["--dtype", "f16"],
        ["--kernels", "plain"],
        ["--map-files", "never"],
    ] {
        let ran = run(&[&["compare", "a cat"][..], &more].concat()).expect(2);
        assert!(ran.stderr.contains("--weights"), "{}", ran.stderr);
    }
    let weights = [
        "--random-weights",
        "--tiny",
        "--family",
        "sd1",
        "--device",
        "cpu",
    ];
    run(&[&["compare", "a cat"][..], &weights].concat()).expect(0);
    run(&["compare", "a cat"]).expect(0);
}
