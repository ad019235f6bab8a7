//! What an entry has beside its tensors, under `ComfyUI`'s names.

use serde_json::{Map, Value as Json, json};

use crate::conditioning::{Area, ConditioningList, Entry, MaskArea, Sizes};

/// A JSON list with one object for each entry: `area` in latent pixels (`[height, width, y, x]`, or
/// shares behind `"percentage"`), `strength`, `set_area_to_bounds`, `mask_strength`,
/// `start_percent`, `end_percent`, `width`, `height`, `crop_w`, `crop_h`, `target_width`,
/// `target_height`, `aesthetic_score`, `unclip_conditioning`; only what was set. Hidden states,
/// pooled vectors, masks and pictures' embeddings are tensors and not in it.
pub fn entries_json(list: &ConditioningList) -> String {
    let entries: Vec<Json> = list.entries().iter().map(object).collect();
    Json::Array(entries).to_string()
}

fn object(entry: &Entry) -> Json {
    let mut object = Map::new();
    let mut set = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    set("area", entry.area().map(area));
    set("strength", entry.strength().map(Json::from));
    let to_bounds = entry.mask_area().map(|area| area == MaskArea::Bounds);
    set("set_area_to_bounds", to_bounds.map(Json::from));
    set("mask_strength", entry.mask_strength().map(Json::from));
    let range = entry.range();
    set("start_percent", range.map(|range| range.start.into()));
    set("end_percent", range.map(|range| range.end.into()));
    for (name, value) in sizes(entry.sizes()) {
        set(name, value);
    }
    let pictures = entry.unclip().iter().map(|unclip| {
        json!({ "strength": unclip.strength, "noise_augmentation": unclip.noise_augmentation })
    });
    let pictures: Vec<Json> = pictures.collect();
    set(
        "unclip_conditioning",
        (!pictures.is_empty()).then(|| pictures.into()),
    );
    Json::Object(object)
}

fn sizes(sizes: Sizes) -> [(&'static str, Option<Json>); 7] {
    let pixels = |pixels: Option<u32>| pixels.map(Json::from);
    [
        ("width", pixels(sizes.width)),
        ("height", pixels(sizes.height)),
        ("crop_w", pixels(sizes.crop_w)),
        ("crop_h", pixels(sizes.crop_h)),
        ("target_width", pixels(sizes.target_width)),
        ("target_height", pixels(sizes.target_height)),
        ("aesthetic_score", sizes.aesthetic_score.map(Json::from)),
    ]
}

fn area(area: Area) -> Json {
    match area {
        Area::Latent(area) => json!([area.height, area.width, area.y, area.x]),
        Area::Share {
            height,
            width,
            y,
            x,
        } => json!(["percentage", height, width, y, x]),
    }
}
