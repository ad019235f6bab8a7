//! What was computed, or what is needed, as a table.

use std::fmt::{self, Write as _};

use sd_conditioner::ConditioningList;
use sd_conditioner::graph::{Folder, Library, Plan, Socket, Subfolder, entries_json};

use crate::ui::{columns, padded};

/// One line for each entry.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<[String; 4]>,
}

const HEADS: [&str; 4] = ["socket", "entry", "hidden states", "attributes"];

impl Table {
    pub(super) fn add(&mut self, socket: &Socket, list: &ConditioningList) {
        let attributes = entries_json(list);
        let attributes: Vec<serde_json::Value> =
            serde_json::from_str(&attributes).unwrap_or_default();
        for (place, entry) in list.entries().iter().enumerate() {
            let conditioning = entry.conditioning();
            let sides: Vec<String> = conditioning
                .context()
                .dims()
                .iter()
                .map(usize::to_string)
                .collect();
            let attributes = attributes.get(place).map(ToString::to_string);
            self.rows.push([
                socket.to_string(),
                place.to_string(),
                format!("{} {}", conditioning.family(), sides.join("x")),
                attributes.unwrap_or_default(),
            ]);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = HEADS.map(str::to_owned);
        let widths = [0, 1, 2, 3].map(|column| {
            let cells = self.rows.iter().chain([&heads]);
            let widths = cells.map(|row| columns(&row[column]));
            widths.max().unwrap_or(0)
        });
        for (place, row) in [&heads].into_iter().chain(&self.rows).enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{}  ", padded(cell, width))?;
            }
            let end = if place == self.rows.len() { "" } else { "\n" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What a plan needs and gives, and whether it is there.
pub(super) fn plan(plan: &Plan, folder: Option<&Folder>) -> String {
    let mut lines = vec!["needs".to_owned()];
    for need in plan.needs() {
        // Embeddings may be missing; nothing more is known of theirs than a name.
        let there = folder.map(|folder| match need.subfolder {
            Subfolder::Embeddings => "",
            _ if folder.check(need).is_ok() => "  (there)",
            _ => "  (missing)",
        });
        lines.push(format!("  {need}{}", there.unwrap_or_default()));
    }
    lines.push("gives".to_owned());
    lines.extend(plan.sockets().map(|socket| format!("  {socket}")));
    lines.push(format!(
        "encodes {} prompts in {} distinct windows",
        plan.n_encodings(),
        plan.n_windows()
    ));
    lines.join("\n")
}
