//! What a file of encoded prompts holds, in the three layouts that are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::conditioning::Entry;
use sd_conditioner::storage::{comfyui, diffusers, kohya};
use sd_conditioner::{Conditioning, Result};
use serde::Serialize;

use super::row;

/// Larger files are not tried: they are read whole.
const LARGEST: u64 = 1 << 28;

/// The JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    path: String,
    layout: &'static str,
    family: &'static str,
    entries: Vec<Prompt>,
    metadata: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// One encoded prompt.
#[derive(Debug, Serialize)]
struct Prompt {
    name: String,
    rows: usize,
    channels: usize,
    pooled: Option<usize>,
    dtype: &'static str,
}

/// The conditioning in a file, if it is one.
pub(super) fn open(path: &Path) -> Option<Shown> {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    if length > LARGEST {
        return None;
    }
    let tried = [of_comfyui(path), of_kohya(path), of_diffusers(path)];
    tried.into_iter().find_map(Result::ok)
}

fn of_comfyui(path: &Path) -> Result<Shown> {
    let loaded = comfyui::load(path)?;
    let entries = loaded.entries.entries().iter().map(Entry::conditioning);
    let mut shown = shown(
        path,
        "comfyui",
        entries
            .enumerate()
            .map(|(index, one)| (format!("entry {index}"), one)),
    );
    shown.notes = loaded.notes;
    Ok(shown)
}

fn of_kohya(path: &Path) -> Result<Shown> {
    let one = kohya::load(path)?;
    Ok(shown(
        path,
        "kohya",
        [("prompt".to_owned(), &one)].into_iter(),
    ))
}

fn of_diffusers(path: &Path) -> Result<Shown> {
    let saved = diffusers::load(path)?;
    let sides = [
        ("positive", Some(&saved.positive)),
        ("negative", saved.negative.as_ref()),
    ];
    let sides = sides
        .into_iter()
        .filter_map(|(name, side)| Some((name.to_owned(), side?)));
    let mut shown = shown(path, "diffusers", sides);
    shown.metadata = saved.metadata.clone();
    Ok(shown)
}

fn shown<'a>(
    path: &Path,
    layout: &'static str,
    entries: impl Iterator<Item = (String, &'a Conditioning)>,
) -> Shown {
    let entries: Vec<(String, &Conditioning)> = entries.collect();
    let family = entries
        .first()
        .map_or("unknown", |(_, first)| first.family().name());
    let prompts = entries.into_iter();
    let prompts = prompts.map(|(name, one)| Prompt::of(name, one));
    Shown {
        path: path.display().to_string(),
        layout,
        family,
        entries: prompts.collect(),
        metadata: BTreeMap::new(),
        notes: Vec::new(),
    }
}

impl Prompt {
    fn of(name: String, one: &Conditioning) -> Prompt {
        let width = |tensor: &Tensor| tensor.dims().last().copied();
        Prompt {
            name,
            rows: one.tokens(),
            channels: width(one.context()).unwrap_or(0),
            pooled: one.pooled().and_then(width),
            dtype: one.context().dtype().as_str(),
        }
    }
}

/// For people.
pub(super) fn lines(shown: &Shown) -> Vec<String> {
    let mut lines = vec![
        row("what", "a conditioning (encoded prompts)"),
        row("family", shown.family),
        row("layout", shown.layout),
    ];
    for one in &shown.entries {
        let pooled = one
            .pooled
            .map_or(String::new(), |width| format!(", pooled {width}"));
        let text = format!("{} × {} of {}{pooled}", one.rows, one.channels, one.dtype);
        lines.push(row(&one.name, &text));
    }
    let said = shown.metadata.iter();
    lines.extend(said.map(|(key, value)| row("metadata", &format!("{key}: {value}"))));
    lines.extend(shown.notes.iter().map(|note| row("note", note)));
    lines
}
