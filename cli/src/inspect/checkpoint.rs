//! What a checkpoint holds.

use std::collections::BTreeMap;

use indicatif::HumanBytes;
use sd_conditioner::Family;
use sd_conditioner::weights::{Container, EncoderSummary, LoadReport, Summary};
use serde::Serialize;

use super::{counts, listed, row};

/// The JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    path: String,
    container: &'static str,
    /// `null` where the file alone does not decide it.
    family: Option<&'static str>,
    candidates: Vec<&'static str>,
    tensors: usize,
    bytes: u64,
    hash: &'a str,
    encoders: Vec<Encoder<'a>>,
    used: usize,
    unused: &'a [String],
    ignored: &'a BTreeMap<String, usize>,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct Encoder<'a> {
    #[serde(rename = "encoder")]
    name: &'static str,
    layout: &'static str,
    root: &'a str,
    width: usize,
    layers: usize,
    vocabulary: usize,
    positions: usize,
    projection: bool,
    dtypes: &'a BTreeMap<String, usize>,
    bytes: u64,
    problems: &'a [String],
}

impl Shown<'_> {
    pub(super) fn of(summary: &Summary) -> Shown<'_> {
        let LoadReport {
            used,
            unused,
            cast: _,
            ignored,
            notes,
            ..
        } = &summary.report;
        Shown {
            path: summary.path.display().to_string(),
            container: container(summary.container),
            family: summary.family.map(Family::name),
            candidates: summary.candidates.iter().map(|one| one.name()).collect(),
            tensors: summary.n_tensors,
            bytes: summary.n_bytes,
            hash: &summary.fingerprint,
            encoders: summary.encoders.iter().map(encoder).collect(),
            used: used.len(),
            unused,
            ignored,
            notes,
        }
    }
}

fn encoder(summary: &EncoderSummary) -> Encoder<'_> {
    Encoder {
        name: summary.encoder.tag(),
        layout: summary.layout.id(),
        root: &summary.root,
        width: summary.width,
        layers: summary.n_layers,
        vocabulary: summary.vocabulary,
        positions: summary.positions,
        projection: summary.projection,
        dtypes: &summary.stored,
        bytes: summary.n_bytes,
        problems: &summary.problems,
    }
}

const fn container(container: Container) -> &'static str {
    match container {
        Container::Safetensors => "safetensors",
        Container::PyTorch => "pytorch",
        Container::Gguf => "gguf",
        Container::Folder => "folder",
        _ => "other",
    }
}

/// For people.
pub(super) fn lines(summary: &Summary) -> Vec<String> {
    let report = &summary.report;
    let mut lines = vec![
        row("family", &family(summary)),
        row("container", container(summary.container)),
        row(
            "size",
            &format!(
                "{}, {} tensors",
                HumanBytes(summary.n_bytes),
                summary.n_tensors
            ),
        ),
        row("hash", &summary.fingerprint),
    ];
    for encoder in &summary.encoders {
        lines.extend(encoder_lines(encoder));
    }
    lines.push(row("used", &format!("{} tensors", report.used.len())));
    lines.push(row("unused", &format!("{} tensors", report.unused.len())));
    lines.extend(listed(&report.unused));
    lines.push(row("ignored", &counts(&report.ignored)));
    lines.extend(report.notes.iter().map(|note| row("note", note)));
    lines
}

/// The family, or what it could serve as.
fn family(summary: &Summary) -> String {
    let candidates: Vec<&str> = summary.candidates.iter().map(|one| one.name()).collect();
    match summary.family {
        Some(family) => family.name().to_owned(),
        None if candidates.is_empty() => "none that this version knows".to_owned(),
        None => format!("{} (say --family)", candidates.join(" or ")),
    }
}

fn encoder_lines(encoder: &EncoderSummary) -> Vec<String> {
    let projection = if encoder.projection {
        "with projection"
    } else {
        "no projection"
    };
    let layout = format!("{} under `{}`", encoder.layout.id(), encoder.root);
    let shape = format!(
        "width {}, {} layers, {} ids, {} positions, {projection}",
        encoder.width, encoder.n_layers, encoder.vocabulary, encoder.positions
    );
    let mut lines = vec![
        row("encoder", encoder.encoder.tag()),
        row("  layout", &layout),
        row("  shape", &shape),
        row("  dtypes", &counts(&encoder.stored)),
        row("  size", &HumanBytes(encoder.n_bytes).to_string()),
    ];
    let problems = encoder.problems.iter();
    lines.extend(problems.map(|problem| row("  problem", problem)));
    lines
}
