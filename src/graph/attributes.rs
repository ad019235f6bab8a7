//! What an entry has beside its tensors, under `ComfyUI`'s names.

use serde_json::{Value as Json, json};

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
    let to_bounds = entry.mask_area().map(|area| area == MaskArea::Bounds);
    let range = entry.range();
    let first = [
        ("area", entry.area().map(area)),
        ("strength", entry.strength().map(Json::from)),
        ("set_area_to_bounds", to_bounds.map(Json::from)),
        ("mask_strength", entry.mask_strength().map(Json::from)),
        ("start_percent", range.map(|range| range.start.into())),
        ("end_percent", range.map(|range| range.end.into())),
    ];
    let last = [("unclip_conditioning", pictures(entry))];
    let all = first.into_iter().chain(sizes(entry.sizes())).chain(last);
    let set = all.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Json::Object(set.collect())
}

/// Strengths of pictures' embeddings, if there are some.
fn pictures(entry: &Entry) -> Option<Json> {
    let pictures = entry.unclip().iter().map(|unclip| {
        json!({ "strength": unclip.strength, "noise_augmentation": unclip.noise_augmentation })
    });
    let pictures: Vec<Json> = pictures.collect();
    (!pictures.is_empty()).then(|| pictures.into())
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
