//! PEFT's configuration, for files whose tensors say nothing of alpha: beside the tensors
//! (`adapter_config.json`) or in the header (`lora_adapter_metadata`, as diffusers writes it).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use super::names::{Slot, Spelt};
use crate::weights::format::file;
use crate::weights::format::header::Metadata;

/// The header's key.
const KEY: &str = "lora_adapter_metadata";

/// The file's name, and how much of it is read.
const FILE: &str = "adapter_config.json";
const LONGEST: u64 = 1 << 20;

/// Patterns of a configuration that are compiled.
const MOST_PATTERNS: usize = 256;

/// How alpha becomes a factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Adapter {
    alpha: f64,
    rank_stabilized: bool,
}

impl Adapter {
    /// α / r, or α / √r with `use_rslora`.
    pub(super) fn factor(self, rank: f64) -> f64 {
        let divisor = if self.rank_stabilized {
            rank.sqrt()
        } else {
            rank
        };
        self.alpha / divisor
    }
}

/// What a file says of all its modules.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    /// By the name of the encoder that it is for; `""` for a file of one encoder.
    rules: BTreeMap<&'static str, Rule>,
}

#[derive(Debug)]
struct Rule {
    adapter: Adapter,
    /// Other alphas for modules whose path ends so.
    patterns: Vec<(Regex, f64)>,
}

impl Adapters {
    /// From the header, else from the file beside it. What cannot be read becomes a note.
    pub(super) fn read(path: &Path, metadata: &Metadata, notes: &mut Vec<String>) -> Adapters {
        let mut adapters = Adapters::default();
        if let Some(text) = metadata.get(KEY) {
            let Some(map) = object(text, KEY, notes) else {
                return adapters;
            };
            for name in ["text_encoder", "text_encoder_2"] {
                let prefix = format!("{name}.");
                let below = map.iter().filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                });
                adapters.add(name, &below.collect(), notes);
            }
        } else if let Some(text) = beside(path, notes)
            && let Some(map) = object(&text, FILE, notes)
        {
            adapters.add("", &map, notes);
        }
        adapters
    }

    /// What counts for a module.
    pub(super) fn of(&self, spelt: &Spelt<'_>) -> Option<Adapter> {
        let name = match spelt.slot {
            Slot::Unsaid => "",
            _ => spelt.prefix.trim_end_matches('.'),
        };
        let rule = self.rules.get(name)?;
        let own = rule
            .patterns
            .iter()
            .find(|(pattern, _)| pattern.is_match(spelt.path));
        Some(Adapter {
            alpha: own.map_or(rule.adapter.alpha, |(_, alpha)| *alpha),
            ..rule.adapter
        })
    }

    fn add(&mut self, name: &'static str, map: &Map<String, Value>, notes: &mut Vec<String>) {
        let Some(alpha) = map.get("lora_alpha") else {
            return;
        };
        let Some(alpha) = alpha.as_f64().filter(|alpha| alpha.is_finite()) else {
            notes.push(format!(
                "`lora_alpha` is {alpha}, which is no number; it is ignored"
            ));
            return;
        };
        let adapter = Adapter {
            alpha,
            rank_stabilized: map.get("use_rslora") == Some(&Value::Bool(true)),
        };
        let patterns = patterns(map.get("alpha_pattern"), notes);
        self.rules.insert(name, Rule { adapter, patterns });
    }
}

/// PEFT matches a key against the end of a module's path, at a dot (`get_pattern_key` in
/// `peft/utils/other.py`).
fn patterns(value: Option<&Value>, notes: &mut Vec<String>) -> Vec<(Regex, f64)> {
    let Some(map) = value.and_then(Value::as_object) else {
        return Vec::new();
    };
    if map.len() > MOST_PATTERNS {
        let count = map.len();
        notes.push(format!(
            "of {count} patterns of `alpha_pattern`, {MOST_PATTERNS} are read"
        ));
    }
    let mut compiled = Vec::new();
    for (key, alpha) in map.iter().take(MOST_PATTERNS) {
        let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"));
        match (pattern, alpha.as_f64()) {
            (Ok(pattern), Some(alpha)) if alpha.is_finite() => compiled.push((pattern, alpha)),
            _ => notes.push(format!(
                "`alpha_pattern` has {key:?}: {alpha}, which is ignored"
            )),
        }
    }
    compiled
}

fn object(text: &str, what: &str, notes: &mut Vec<String>) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Some(map),
        Ok(_) => {
            notes.push(format!("{what} is no JSON object; it is ignored"));
            None
        }
        Err(error) => {
            notes.push(format!("{what} cannot be read ({error}); it is ignored"));
            None
        }
    }
}

/// The configuration in the folder of an adapter's file.
fn beside(path: &Path, notes: &mut Vec<String>) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let beside = path.with_file_name(FILE);
    if stem != "adapter_model" || !beside.is_file() {
        return None;
    }
    let mut text = String::new();
    let read = file::open(&beside).map(|(file, _)| file.take(LONGEST).read_to_string(&mut text));
    match read {
        Ok(Ok(_)) => Some(text),
        Ok(Err(error)) => {
            notes.push(format!("{FILE} cannot be read ({error}); it is ignored"));
            None
        }
        Err(error) => {
            notes.push(format!("{FILE} cannot be read ({error}); it is ignored"));
            None
        }
    }
}
