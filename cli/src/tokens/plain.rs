//! One id a line, padding counted.

use super::shown::{Shown, Window};
use crate::ui::short;

/// The lines for people.
pub(super) fn text(shown: &Shown) -> String {
    let mut lines = vec![shown.title()];
    for (title, encoders) in shown.sections() {
        for encoder in encoders {
            lines.push(format!("{title}, {}", encoder.title()));
            for named in encoder.named_windows() {
                let (name, window) = (&named.name, named.window);
                lines.push(format!("  {name}: {} of 75 ids", window.tokens));
                lines.extend(rows(window));
            }
            let notes = encoder.notes.iter();
            lines.extend(notes.map(|note| format!("  note: {}", note.about(&encoder.text))));
        }
    }
    let notes = shown.notes().iter();
    lines.extend(notes.map(|note| format!("note: {note}")));
    lines.join("\n")
}

fn rows(window: &Window) -> Vec<String> {
    let all = window.ids.iter().zip(&window.pieces).zip(&window.strengths);
    let mut lines: Vec<String> = all
        .take(window.used())
        .enumerate()
        .map(|(row, ((id, piece), strength))| match strength {
            1.0 => format!("    {row:>2}  {id:>5}  {piece}"),
            _ => format!("    {row:>2}  {id:>5}  {piece}  × {}", short(*strength)),
        })
        .collect();
    if let Some((id, count)) = window.padding() {
        lines.push(format!("        {id:>5}  padding × {count}"));
    }
    lines
}
