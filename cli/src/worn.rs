//! What is said of `LoRAs`: to people, and in the metadata of files.

use std::collections::BTreeMap;
use std::path::Path;

use sd_conditioner::weights::LoraReport;
use serde_json::{Value, json};

use crate::ui;
use crate::wardrobe::Worn;

/// How many names a warning spells out.
const SPELT_OUT: usize = 3;

/// `film.safetensors: 72 modules of clip_l at 0.8; left aside: 722 of unet`.
pub(crate) fn summary(report: &LoraReport) -> String {
    let applied = report.applied.iter().map(|(encoder, count)| {
        let strength = report.strengths.get(encoder).copied().unwrap_or_default();
        let modules = if *count == 1 { "module" } else { "modules" };
        format!("{count} {modules} of {encoder} at {}", ui::short(strength))
    });
    let applied: Vec<String> = applied.collect();
    let applied = match applied.as_slice() {
        [] => "no module of these encoders".to_owned(),
        some => some.join(", "),
    };
    let skipped = report.skipped.iter();
    let skipped: Vec<String> = skipped
        .map(|(part, count)| format!("{count} of {part}"))
        .collect();
    let aside = if skipped.is_empty() {
        String::new()
    } else {
        format!("; left aside: {}", skipped.join(", "))
    };
    format!("{}: {applied}{aside}", name(&report.path))
}

/// Modules without a place, tensors that nobody knows, and the library's own notes.
pub(crate) fn warnings(report: &LoraReport) -> Vec<String> {
    let unmatched = report.unmatched.iter();
    let unmatched = unmatched.map(|one| format!("`{}` ({})", one.module, one.reason));
    let unknown = report.unknown.iter().map(|name| format!("`{name}`"));
    let lists = [
        ("text modules not used", unmatched.collect::<Vec<_>>()),
        ("unknown tensors", unknown.collect()),
    ];
    let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
    let lists = lists.map(|(what, names)| {
        let more = if names.len() > SPELT_OUT { " …" } else { "" };
        let shown = names[..names.len().min(SPELT_OUT)].join(", ");
        format!("{what} ({}): {shown}{more}", names.len())
    });
    let all = lists.chain(report.notes.iter().cloned());
    let file = name(&report.path);
    all.map(|text| format!("{file}: {text}")).collect()
}

/// JSON that names every LoRA with its strengths and a hash of its content.
pub(crate) fn metadata(worn: &[Worn]) -> Value {
    let each = worn.iter().map(|(lora, report)| {
        let strengths = report.strengths.iter();
        let strengths: BTreeMap<&str, f64> = strengths
            .map(|(encoder, strength)| (encoder.tag(), *strength))
            .collect();
        json!({
            "file": name(&report.path),
            "hash": lora.lora().fingerprint(),
            "strengths": strengths,
        })
    });
    each.collect()
}

/// The file's own name: where it lies differs from one machine to another.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
