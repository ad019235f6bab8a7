//! The comparison for people.

use super::cosine::Matrix;
use super::{Column, Compared, Encoder, ShownPiece, Text};
use crate::notes::quoted;
use crate::paint::{Look, Paint};
use crate::ui::short;

/// The longest name of a profile.
const NAMES: usize = 9;

/// A column of the matrix.
const NUMBERS: usize = 9;

/// The lines for people.
pub(super) fn text(compared: &Compared<'_>, paint: Paint) -> String {
    let title = format!("{}: `{}`", compared.family, quoted(compared.text));
    let mut lines = vec![paint.text(Look::Bold, title), String::new()];
    let header = format!("{:<NAMES$}  windows  ids      pieces", "profile");
    lines.push(paint.text(Look::Faint, header));
    for column in &compared.profiles {
        lines.extend(rows(column, paint));
    }
    if let Some(cosines) = &compared.cosines {
        let names: Vec<&str> = compared.profiles.iter().map(|one| one.profile).collect();
        let title = "cosine of the hidden states, over the rows that both have";
        lines.extend(square(title, &names, &cosines.context, paint));
        if let Some(pooled) = &cosines.pooled {
            let title = "cosine of the pooled vectors";
            lines.extend(square(title, &names, pooled, paint));
        }
    }
    lines.join("\n")
}

/// One line for each text, then the notes.
fn rows(column: &Column, paint: Paint) -> Vec<String> {
    let each = |number: fn(&Encoder) -> usize| {
        let numbers = column.encoders.iter().map(|one| number(one).to_string());
        numbers.collect::<Vec<_>>().join("+")
    };
    let Some(first) = column.encoders.first() else {
        return Vec::new();
    };
    let windows = first.windows.to_string();
    let ids = each(|encoder| encoder.tokens);
    let mut start = format!("{:<NAMES$}  {windows:<7}  {ids:<7}", column.profile);
    let mut lines = Vec::new();
    for text in &first.texts {
        let line = format!("{start}  {}", pieces(text, paint));
        lines.push(line.trim_end().to_owned());
        start = " ".repeat(start.chars().count());
    }
    let indent = " ".repeat(NAMES);
    let notes = notes(column).into_iter();
    lines.extend(notes.map(|note| paint.text(Look::Notice, format!("{indent}  note: {note}"))));
    lines
}

/// What the encoders say, each thing once.
fn notes(column: &Column) -> Vec<String> {
    let mut notes = Vec::new();
    for note in column.encoders.iter().flat_map(|encoder| &encoder.notes) {
        let [from, to] = note.span;
        let note = format!("{} ({} at {from}..{to})", note.message, note.kind);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

#[expect(clippy::float_cmp, reason = "neutral is exact")]
fn pieces(text: &Text, paint: Paint) -> String {
    let pieces: Vec<String> = text.pieces.iter().map(|one| piece(one, paint)).collect();
    let pieces = pieces.join(" ");
    if text.weight == 1.0 {
        pieces
    } else {
        format!("{} × {pieces}", short(text.weight))
    }
}

#[expect(clippy::float_cmp, reason = "neutral is exact")]
fn piece(piece: &ShownPiece, paint: Paint) -> String {
    let name = match piece.kind {
        "break" => return paint.text(Look::Notice, "BREAK"),
        "embedding" => paint.text(Look::Vector, format!("<{}>", quoted(&piece.text))),
        _ => format!("`{}`", quoted(&piece.text)),
    };
    if piece.strength == 1.0 {
        return name;
    }
    let strength = format!("{name}×{}", short(piece.strength));
    paint.text(Look::of_strength(piece.strength), strength)
}

fn square(title: &str, names: &[&str], matrix: &Matrix, paint: Paint) -> Vec<String> {
    let columns = names.iter().map(|name| format!("  {name:>NUMBERS$}"));
    let columns = columns.collect::<Vec<_>>().concat();
    let header = paint.text(Look::Faint, format!("{:<NAMES$}{columns}", ""));
    let mut lines = vec![String::new(), paint.text(Look::Bold, title), header];
    let rows = names.iter().zip(matrix);
    lines.extend(rows.map(|(name, row)| {
        let row: String = row.iter().map(|cosine| cell(*cosine)).collect();
        format!("{name:<NAMES$}{row}")
    }));
    lines
}

fn cell(cosine: Option<f64>) -> String {
    match cosine {
        Some(cosine) => format!("  {cosine:>NUMBERS$.6}"),
        None => format!("  {:>NUMBERS$}", "–"),
    }
}
