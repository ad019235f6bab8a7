//! What a case of the manifest asks for, in this library's words.

use sd_conditioner::encoder::Pooled;
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

/// True where the case needs nothing but plain text: no emphasis, embedding or LoRA.
pub(crate) fn is_plain(case: &Case) -> bool {
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

pub(crate) fn request<'a>(case: &Case, side: &'a Side, value: &Value) -> Request<'a> {
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
