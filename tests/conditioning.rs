//! The whole flow against the reference programs, on tiny synthetic encoders in f32.

use std::collections::BTreeMap;

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::encoder::Pooled;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request, SizeHints};
use serde_json::Value;

use crate::support::close::distance;
use crate::support::golden::{Case, Goldens};

/// One text or two.
enum Side {
    Absent,
    One(String),
    Two(String, String),
}

impl Side {
    /// `None` for values that only a node graph can make.
    fn of(value: &Value) -> Option<Side> {
        match value {
            Value::Null => Some(Side::Absent),
            Value::String(text) => Some(Side::One(text.clone())),
            Value::Object(map) => {
                let text = map.get("text")?.as_str()?.to_owned();
                Some(match map.get("text_2").and_then(Value::as_str) {
                    Some(second) => Side::Two(text, second.to_owned()),
                    None => Side::One(text),
                })
            }
            _ => None,
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Side::Absent => Request::absent(),
            Side::One(text) => Request::new(text),
            Side::Two(first, second) => Request::per_encoder(first, second),
        }
    }
}

/// True where the case needs nothing but plain text: no emphasis, embedding or LoRA.
fn is_plain(case: &Case) -> bool {
    let weighted = case.tolerance.rel_f32 > 5e-5 && case.implementation != "diffusers";
    let needs = ["embeddings", "lora", "steps"]
        .iter()
        .any(|name| case.option(name).is_some());
    let breaks = case.implementation == "a1111" && case.positive.to_string().contains("BREAK");
    !weighted && !needs && !breaks
}

fn profile(case: &Case) -> Profile {
    match case.implementation.as_str() {
        "diffusers" => Profile::Diffusers,
        "comfyui" => Profile::ComfyUi,
        "a1111" => Profile::A1111,
        other => panic!("no profile for {other}"),
    }
}

fn number(value: &Value, name: &str) -> Option<u32> {
    value
        .get(name)
        .and_then(Value::as_u64)
        .map(|number| u32::try_from(number).unwrap())
}

/// The picture's size: of the node, else of the latent, else the tool's default.
fn size(case: &Case, value: &Value) -> SizeHints {
    let node = value.get("size").or_else(|| value.get("refiner"));
    let latent = case.option("adm").unwrap_or(&case.options);
    let of = |name: &str| {
        node.and_then(|node| number(node, name))
            .or_else(|| number(latent, name))
    };
    let node_default = |name: &str| {
        value
            .get("text_2")
            .is_some()
            .then_some(1024)
            .or_else(|| of(name))
    };
    let pick = |name: &str| {
        node.and_then(|node| number(node, name))
            .or_else(|| node_default(name))
            .unwrap_or(1024)
    };
    let mut hints = SizeHints::new(pick("width"), pick("height"));
    if let Some(node) = node {
        hints.crop_left = number(node, "crop_w").unwrap_or(0);
        hints.crop_top = number(node, "crop_h").unwrap_or(0);
        hints.target_width = number(node, "target_width").or(Some(1024));
        hints.target_height = number(node, "target_height").or(Some(1024));
        #[expect(clippy::cast_possible_truncation, reason = "a score of the manifest")]
        let score = node
            .get("ascore")
            .and_then(Value::as_f64)
            .map(|score| score as f32);
        hints.aesthetic_score = score;
    }
    hints
}

fn request<'a>(case: &Case, side: &'a Side, value: &Value) -> Request<'a> {
    let mut request = side
        .request()
        .profile(profile(case))
        .size(size(case, value));
    let skip = case
        .option("clip_skip")
        .or_else(|| case.option("clip_layer"));
    if let Some(skip) = skip.and_then(Value::as_i64) {
        request = request.clip_skip(i32::try_from(skip).unwrap());
    }
    if case.implementation == "diffusers" && matches!(case.family(), Family::Sd1 | Family::Sd2) {
        // The manifest's pooled vectors of these are the encoder's `pooler_output`.
        request = request.pooled(Pooled::Normed);
    }
    request
}

/// Every tensor of one side under the manifest's names.
fn tensors(name: &str, conditioning: &Conditioning, out: &mut BTreeMap<String, Tensor>) {
    out.insert(
        format!("{name}.hidden_states"),
        conditioning.context().clone(),
    );
    if let Some(pooled) = conditioning.pooled() {
        out.insert(format!("{name}.pooled"), pooled.clone());
    }
    if let Some(vector) = conditioning.vector().unwrap() {
        out.insert(format!("{name}.adm"), vector);
    }
}

/// Runs one case; both sides apart, as the reference programs do.
fn run(conditioner: &Conditioner, case: &Case) -> Option<BTreeMap<String, Tensor>> {
    let zero_out = case.negative.get("zero_out").cloned();
    let negative_value = zero_out.clone().unwrap_or_else(|| case.negative.clone());
    let (positive, negative) = (Side::of(&case.positive)?, Side::of(&negative_value)?);
    let requests = [
        request(case, &positive, &case.positive),
        request(case, &negative, &case.negative).as_negative(),
    ];
    let mut both = conditioner.encode_batch(&requests).unwrap();
    if zero_out.is_some() {
        both[1] = both[1].zeroed().unwrap();
    }
    let mut out = BTreeMap::new();
    tensors("positive", &both[0], &mut out);
    tensors("negative", &both[1], &mut out);
    Some(out)
}

/// Checks all plain cases of some implementations; returns how many and the largest error.
fn check(implementations: &[&str]) -> (usize, f64) {
    let goldens = Goldens::load(implementations);
    let mut loaded: BTreeMap<Family, Conditioner> = BTreeMap::new();
    let (mut n_cases, mut largest, mut wrong) = (0, 0.0_f64, Vec::new());
    for case in goldens.manifest.cases.iter().filter(|case| is_plain(case)) {
        let family = case.family();
        let seed = goldens.manifest.seed;
        let conditioner = loaded.entry(family).or_insert_with(|| {
            Conditioner::builder()
                .random_weights(family, SyntheticSize::Tiny, seed)
                .unwrap()
        });
        let Some(ours) = run(conditioner, case) else {
            continue;
        };
        n_cases += 1;
        for (name, stored) in &case.tensors {
            let Some(ours) = ours.get(name) else {
                wrong.push(format!("{}: {name} is missing", case.id));
                continue;
            };
            let (theirs, ours) = goldens.rows(stored, ours);
            let found = distance(&ours, &theirs);
            largest = largest.max(found.relative);
            if found.relative > case.tolerance.rel_f32 {
                wrong.push(format!("{}: {name}: {found:?}", case.id));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {n_cases} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    (n_cases, largest)
}

#[test]
fn diffusers_plain() {
    let (n_cases, largest) = check(&["diffusers"]);
    println!("diffusers: {n_cases} cases, largest relative error {largest:e}");
    assert!(n_cases >= 30);
}

#[test]
fn comfyui_plain() {
    let (n_cases, largest) = check(&["comfyui"]);
    println!("comfyui: {n_cases} cases, largest relative error {largest:e}");
    assert!(n_cases >= 20);
}

#[test]
fn a1111_plain() {
    let (n_cases, largest) = check(&["a1111"]);
    println!("a1111: {n_cases} cases, largest relative error {largest:e}");
    assert!(n_cases >= 15);
}
