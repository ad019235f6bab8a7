//! PEFT's configuration, for files whose tensors say nothing of alpha: beside the tensors
//! (`adapter_config.json`) or in the header (`lora_adapter_metadata`, as diffusers writes it).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use super::names::{Slot, Spelt};
use crate::error::Result;
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
    /// What it says of the rank, for modules whose matrices do not tell.
    rank: Option<f64>,
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

    /// The same with the rank that the configuration gives, if it gives one.
    pub(super) fn told_factor(self) -> Option<f64> {
        self.rank.map(|rank| self.factor(rank))
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
    /// Other alphas and ranks for modules whose path ends so.
    alphas: Patterns,
    ranks: Patterns,
}

type Patterns = Vec<(Regex, f64)>;

impl Rule {
    /// What counts for a module of this path.
    fn of(&self, path: &str) -> Adapter {
        let own = |patterns: &Patterns| {
            let found = patterns.iter().find(|(pattern, _)| pattern.is_match(path));
            found.map(|(_, number)| *number)
        };
        Adapter {
            alpha: own(&self.alphas).unwrap_or(self.adapter.alpha),
            rank: own(&self.ranks).or(self.adapter.rank),
            ..self.adapter
        }
    }
}

impl Adapters {
    /// From the header, else from the file beside it. What is no configuration becomes a note; a file
    /// that cannot be opened is an error, for without it every factor would be wrong.
    pub(super) fn read(
        path: &Path,
        metadata: &Metadata,
        notes: &mut Vec<String>,
    ) -> Result<Adapters> {
        let mut adapters = Adapters::default();
        if let Some(text) = metadata.get(KEY) {
            let Some(map) = object(text, KEY, notes) else {
                return Ok(adapters);
            };
            for name in ["text_encoder", "text_encoder_2"] {
                let prefix = format!("{name}.");
                let below = map.iter().filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                });
                adapters.add(name, &below.collect(), notes);
            }
        } else if let Some(text) = beside(path, notes)?
            && let Some(map) = object(&text, FILE, notes)
        {
            adapters.add("", &map, notes);
        }
        Ok(adapters)
    }

    /// What counts for a module.
    pub(super) fn of(&self, spelt: &Spelt<'_>) -> Option<Adapter> {
        let name = match spelt.slot {
            Slot::Unsaid => "",
            _ => spelt.prefix.trim_end_matches('.'),
        };
        Some(self.rules.get(name)?.of(spelt.path))
    }

    fn add(&mut self, name: &'static str, map: &Map<String, Value>, notes: &mut Vec<String>) {
        let Some((key, alpha)) = alpha(map) else {
            return;
        };
        let Some(alpha) = alpha.as_f64().filter(|alpha| alpha.is_finite()) else {
            notes.push(format!(
                "`{key}` is {alpha}, which is no number; it is ignored"
            ));
            return;
        };
        let rank = map.get("r").and_then(Value::as_f64);
        let adapter = Adapter {
            alpha,
            rank: rank.filter(|rank| *rank > 0.0),
            rank_stabilized: map.get("use_rslora") == Some(&Value::Bool(true)),
        };
        let alphas = patterns("alpha_pattern", map, notes);
        let mut ranks = patterns("rank_pattern", map, notes);
        ranks.retain(|(_, rank)| *rank > 0.0);
        let rule = Rule {
            adapter,
            alphas,
            ranks,
        };
        self.rules.insert(name, rule);
    }
}

/// Kinds that call it `alpha`, and write no tensor of that name (`peft/tuners/{loha,lokr}/config.py`).
const LYCORIS: [&str; 2] = ["LOHA", "LOKR"];

/// Alpha, and under which key it stands.
fn alpha(map: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    let kind = map.get("peft_type").and_then(Value::as_str);
    let lycoris = || kind.filter(|kind| LYCORIS.contains(kind));
    let plain = map.get("lora_alpha").map(|alpha| ("lora_alpha", alpha));
    plain.or_else(|| lycoris().and_then(|_| Some(("alpha", map.get("alpha")?))))
}

/// PEFT matches a key against the end of a module's path, at a dot (`get_pattern_key` in
/// `peft/utils/other.py`).
fn patterns(name: &str, map: &Map<String, Value>, notes: &mut Vec<String>) -> Patterns {
    let Some(map) = map.get(name).and_then(Value::as_object) else {
        return Vec::new();
    };
    if map.len() > MOST_PATTERNS {
        let count = map.len();
        notes.push(format!(
            "of {count} patterns of `{name}`, {MOST_PATTERNS} are read"
        ));
    }
    let mut compiled = Vec::new();
    for (key, number) in map.iter().take(MOST_PATTERNS) {
        let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"));
        match (pattern, number.as_f64()) {
            (Ok(pattern), Some(number)) if number.is_finite() => compiled.push((pattern, number)),
            _ => notes.push(format!("`{name}` has {key:?}: {number}, which is ignored")),
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

/// The configuration in the folder of an adapter's file. A link that leads nowhere is not taken for no
/// configuration.
fn beside(path: &Path, notes: &mut Vec<String>) -> Result<Option<String>> {
    let beside = path.with_file_name(FILE);
    let is_adapter = path.file_stem().is_some_and(|stem| stem == "adapter_model");
    if !is_adapter || !file::is_there(&beside) {
        return Ok(None);
    }
    let (file, _) = file::open(&beside)?;
    let mut text = String::new();
    if let Err(error) = file.take(LONGEST).read_to_string(&mut text) {
        notes.push(format!("{FILE} cannot be read ({error}); it is ignored"));
        return Ok(None);
    }
    Ok(Some(text))
}
