//! `inspect`: what a file or folder holds, from its headers alone.

mod checkpoint;
mod conditioning;
mod embedding;
mod lora;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use sd_conditioner::Error;
use sd_conditioner::weights::Inspected;
use serde::Serialize;

use crate::flags::InspectFlags;
use crate::ui::{self, Done};
use crate::weights;

/// Names that are printed for people; `--json` has all.
const SHOWN_AT_MOST: usize = 20;

/// Reads headers and prints.
pub(crate) fn run(flags: &InspectFlags) -> Done {
    weights::expect_path(&flags.file)?;
    let inspected = match Inspected::open(&flags.file, flags.variant.as_deref()) {
        Ok(inspected) => inspected,
        Err(error) => return encoded(flags, error),
    };
    if flags.json {
        ui::print(json(flags, &inspected)?)?;
    } else {
        ui::print(text(&inspected))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a file holds encoded prompts.
pub(crate) fn is_conditioning(path: &Path) -> bool {
    conditioning::open(path).is_some()
}

/// What holds no tensors of a model may hold encoded prompts.
fn encoded(flags: &InspectFlags, error: Error) -> Done {
    let Some(shown) = conditioning::open(&flags.file) else {
        return Err(error.into());
    };
    if flags.json {
        ui::print(object("conditioning", shown)?)?;
    } else {
        ui::print(conditioning::lines(&shown).join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For people.
fn text(inspected: &Inspected) -> String {
    let lines = match inspected {
        Inspected::Checkpoint(summary) => checkpoint::lines(summary),
        Inspected::Lora(summary) => lora::lines(summary),
        Inspected::Embedding(embedding) => embedding::lines(embedding),
        _ => vec![row("what", "something this command cannot show")],
    };
    lines.join("\n")
}

/// The JSON object; `what` says which keys the others are.
fn json(flags: &InspectFlags, inspected: &Inspected) -> serde_json::Result<String> {
    let path = flags.file.display().to_string();
    match inspected {
        Inspected::Checkpoint(summary) => object("checkpoint", checkpoint::Shown::of(summary)),
        Inspected::Lora(summary) => object("lora", lora::Shown::of(summary)),
        Inspected::Embedding(embedding) => {
            object("embedding", embedding::Shown::of(path, embedding))
        }
        _ => object("other", BTreeMap::from([("path", path)])),
    }
}

#[derive(Debug, Serialize)]
struct Object<T> {
    what: &'static str,
    #[serde(flatten)]
    shown: T,
}

fn object(what: &'static str, shown: impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&Object { what, shown })
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<10} {value}")
}

/// The first of many names, each on a line.
fn listed(names: &[String]) -> impl Iterator<Item = String> {
    let shown = names.iter().take(SHOWN_AT_MOST);
    let more = (names.len() > SHOWN_AT_MOST).then(|| "  … (--json lists all)".to_owned());
    shown.map(|name| format!("  {name}")).chain(more)
}

/// `196 F16, 1 I64`.
fn counts<K: AsRef<str>>(map: &BTreeMap<K, usize>) -> String {
    let all: Vec<String> = map
        .iter()
        .map(|(name, count)| format!("{count} {}", name.as_ref()))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}
