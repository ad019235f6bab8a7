//! What a LoRA holds.

use std::collections::BTreeMap;

use indicatif::HumanBytes;
use sd_conditioner::Family;
use sd_conditioner::weights::{LoraReport, LoraSummary};
use serde::Serialize;

use super::{counts, listed, row};

/// The JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    path: String,
    families: Vec<&'static str>,
    made_for: &'a str,
    tensors: usize,
    bytes: u64,
    hash: &'a str,
    /// Text modules by what their names begin with.
    modules: &'a BTreeMap<&'static str, usize>,
    kinds: &'a BTreeMap<&'static str, usize>,
    ranks: &'a BTreeMap<usize, usize>,
    dtypes: &'a BTreeMap<String, usize>,
    skipped: &'a BTreeMap<&'static str, usize>,
    unmatched: Vec<&'a str>,
    unknown: &'a [String],
    embeddings: &'a [String],
    metadata: &'a BTreeMap<String, String>,
    notes: &'a [String],
}

impl Shown<'_> {
    pub(super) fn of(summary: &LoraSummary) -> Shown<'_> {
        let report = &summary.report;
        let unmatched = report.unmatched.iter();
        Shown {
            path: summary.path.display().to_string(),
            families: summary.families.iter().map(|one| one.name()).collect(),
            made_for: &summary.made_for,
            tensors: summary.n_tensors,
            bytes: summary.n_bytes,
            hash: &summary.fingerprint,
            modules: &summary.modules,
            kinds: &summary.kinds,
            ranks: &summary.ranks,
            dtypes: &summary.stored,
            skipped: &report.skipped,
            unmatched: unmatched.map(|one| one.module.as_str()).collect(),
            unknown: &report.unknown,
            embeddings: &report.embeddings,
            metadata: &summary.metadata,
            notes: &report.notes,
        }
    }
}

/// For people.
pub(super) fn lines(summary: &LoraSummary) -> Vec<String> {
    let report = &summary.report;
    let size = HumanBytes(summary.n_bytes);
    let size = format!("{size}, {} tensors", summary.n_tensors);
    let mut lines = vec![
        row("what", "a LoRA"),
        row("family", &family(summary)),
        row("made for", &summary.made_for),
        row("size", &size),
        row("hash", &summary.fingerprint),
        row("modules", &counts(&summary.modules)),
        row("  kinds", &counts(&summary.kinds)),
        row("  ranks", &ranks(&summary.ranks)),
        row("  dtypes", &counts(&summary.stored)),
        row("left aside", &counts(&report.skipped)),
    ];
    lines.extend(lists(report));
    let metadata = summary.metadata.iter();
    lines.extend(metadata.map(|(key, value)| row("metadata", &format!("{key} = {}", flat(value)))));
    lines.extend(report.notes.iter().map(|note| row("note", note)));
    lines
}

/// What was left or is for others, by name: each list that is not empty, with its count before it.
fn lists(report: &LoraReport) -> Vec<String> {
    let unmatched = report.unmatched.iter();
    let unmatched = unmatched.map(|one| format!("{}: {}", one.module, one.reason));
    let lists = [
        ("unmatched", unmatched.collect()),
        ("unknown", report.unknown.clone()),
        ("embeddings", report.embeddings.clone()),
    ];
    let mut lines = Vec::new();
    for (name, names) in lists {
        if !names.is_empty() {
            lines.push(row(name, &names.len().to_string()));
            lines.extend(listed(&names));
        }
    }
    lines
}

fn family(summary: &LoraSummary) -> String {
    let names: Vec<&str> = summary.families.iter().copied().map(Family::name).collect();
    if names.is_empty() {
        "none that this version knows".to_owned()
    } else {
        names.join(" or ")
    }
}

/// `72 of rank 16`.
fn ranks(map: &BTreeMap<usize, usize>) -> String {
    let all = map.iter();
    let all: Vec<String> = all
        .map(|(rank, count)| format!("{count} of rank {rank}"))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

/// Anyone can have written it.
fn flat(value: &str) -> String {
    value.chars().filter(|sign| !sign.is_control()).collect()
}
