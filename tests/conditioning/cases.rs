//! What a case of the manifest asks for, in this library's words.

use std::path::Path;

use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::conditioning::Emphasis;
use sd_conditioner::encoder::Pooled;
use sd_conditioner::profile::split_named;
use sd_conditioner::tokens::Split;
use sd_conditioner::weights::{Lora, WeightedLora};
use sd_conditioner::{Family, Profile, Request, SizeHints};
use serde_json::Value;

use crate::support::golden::Case;

/// One text or two.
pub(crate) enum Side {
    Absent,
    One(String),
    Two(String, String),
}

impl Side {
    /// `None` for values that only a node graph can make.
    pub(crate) fn of(value: &Value) -> Option<Side> {
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

fn profile(case: &Case) -> Profile {
    match case.implementation.as_str() {
        "diffusers" => Profile::Diffusers,
        "comfyui" | "adv_clip_emb" => Profile::ComfyUi,
        "a1111" => Profile::Forge, // which these were made with
        "compel" => Profile::Compel,
        other => panic!("no profile for {other}"),
    }
}

/// The method that the options name, in this library's names.
fn emphasis(case: &Case) -> Option<Emphasis> {
    let text = |name: &str| case.option(name).and_then(Value::as_str);
    if let Some(mode) = text("emphasis") {
        return Emphasis::named(match mode {
            "Original" => "a1111-original",
            "No norm" => "a1111-no-norm",
            "Ignore" => "ignore",
            "None" => "none",
            other => panic!("no emphasis {other}"),
        });
    }
    let (normalization, interpretation) =
        text("token_normalization").zip(text("weight_interpretation"))?;
    let Emphasis::Adv(mut adv) =
        Emphasis::named(&format!("adv:{normalization}:{interpretation}")).unwrap()
    else {
        panic!("an adv method");
    };
    let balance = case.option("clip_balance").and_then(Value::as_f64);
    adv.balance = balance.unwrap_or(adv.balance);
    adv.affect_pooled = case.option("apply_to_pooled") == Some(&Value::Bool(true));
    Some(Emphasis::Adv(adv))
}

/// What a Compel object's arguments mean. Without the wrapper, prompts are cut at 75 ids.
fn compel<'a>(case: &Case, mut request: Request<'a>) -> Request<'a> {
    let plain = case.option("compel").is_some() || case.family() == Family::Refiner;
    let options = case.option("compel").cloned().unwrap_or_default();
    if plain && options["truncate_long_prompts"] != Value::Bool(false) {
        request = request.split(Split::Truncate);
    }
    if let Some(modes) = options["split_long_text_mode"].as_array() {
        let names: Vec<String> = modes
            .iter()
            .map(|mode| match mode.as_str().unwrap() {
                "COPY_FIRST_CLS_TOKEN" => "copy-first".to_owned(),
                other => other.to_lowercase(),
            })
            .collect();
        let (split, ends) = split_named(&names.join("+")).unwrap();
        request = request.split(split).end_rows(ends);
    }
    if options["downweight_mode"] == "REMOVE" {
        request = request.emphasis(Emphasis::CompelRemove);
    }
    if options["returned_embeddings_type"] == "PENULTIMATE_HIDDEN_STATES_NORMALIZED" {
        request = request.clip_skip(1);
    }
    request
}

/// The embeddings that the options give, from a folder that has all of them.
pub(crate) fn embeddings(case: &Case, folder: &Path) -> Embeddings {
    match case.option("embeddings") {
        None => Embeddings::default(),
        Some(Value::Array(files)) => {
            let text = |file: &Value, name: &str| file[name].as_str().unwrap().to_owned();
            files.iter().fold(Embeddings::default(), |set, file| {
                let path = folder.join(format!("{}.safetensors", text(file, "file")));
                set.with_file(path, Some(&text(file, "token"))).unwrap()
            })
        }
        Some(_) => Embeddings::folder(folder).unwrap(),
    }
}

/// The LoRA that the options name, at its strength, from a folder that has all of them.
pub(crate) fn lora(case: &Case, folder: &Path) -> Option<WeightedLora> {
    let options = case.option("lora")?;
    let naming = options["naming"].as_str().unwrap();
    let path = folder.join(format!("{}.{naming}.safetensors", case.family));
    let strength = options["scale"].as_f64().unwrap();
    Some(Lora::open(&path).unwrap().at(strength))
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

pub(crate) fn request<'a>(
    case: &Case,
    side: &'a Side,
    value: &Value,
    embeddings: &'a Embeddings,
) -> Request<'a> {
    let mut request = side
        .request()
        .profile(profile(case))
        .size(size(case, value))
        .embeddings(embeddings);
    if case.implementation == "compel" {
        request = compel(case, request);
    }
    if let Some(emphasis) = emphasis(case) {
        request = request.emphasis(emphasis);
    }
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
