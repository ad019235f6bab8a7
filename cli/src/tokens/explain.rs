//! `--explain`: a table for each encoder, in colors where there are any.

use super::Named;
use super::shown::{Encoder, Shown};
use crate::notes::quoted;
use crate::paint::{Look, Paint};
use crate::ui::{columns, padded, short};

/// The lines for people.
pub(super) fn text(shown: &Shown, paint: Paint) -> String {
    let mut lines = vec![paint.text(Look::Bold, shown.title())];
    for (title, encoders) in shown.sections() {
        for encoder in encoders {
            let title = format!("{title}, {}", encoder.title());
            lines.push(String::new());
            lines.push(paint.text(Look::Bold, title));
            lines.extend(table(encoder, paint));
            let notes = encoder.notes.iter();
            lines.extend(notes.map(|note| notice(paint, &note.about(&encoder.text))));
        }
    }
    let notes = shown.notes().iter();
    lines.extend(notes.map(|note| notice(paint, note)));
    lines.join("\n")
}

fn notice(paint: Paint, note: &str) -> String {
    paint.text(Look::Notice, format!("  note: {note}"))
}

/// The parts of a row.
struct Row {
    look: Look,
    number: String,
    id: String,
    piece: String,
    strength: String,
    span: String,
    source: String,
}

fn table(encoder: &Encoder, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for named in encoder.named_windows() {
        let rows = rows(&named, &encoder.text);
        let width = |cell: fn(&Row) -> &str, least: usize| {
            let widths = rows.iter().map(|row| columns(cell(row)));
            widths.max().unwrap_or(0).max(least)
        };
        let widths = [
            width(|row| &row.piece, 5),
            width(|row| &row.strength, 8),
            width(|row| &row.span, 5),
        ];
        let (name, count) = (&named.name, named.window.tokens);
        lines.push(format!("  {name}: {count} of 75 ids"));
        lines.push(paint.text(Look::Faint, header(widths)));
        lines.extend(rows.iter().map(|row| line(row, widths, paint)));
    }
    lines
}

fn header([piece, strength, span]: [usize; 3]) -> String {
    let start = format!(
        "   row     id  {:<piece$}  {:<strength$}",
        "piece", "strength"
    );
    format!("{start}  {:<span$}  text", "bytes")
}

/// `*` marks the row that the pooled vector is read at.
fn line(row: &Row, [piece, strength, span]: [usize; 3], paint: Paint) -> String {
    let start = format!("{:>6}  {:>5}  ", row.number, row.id);
    let middle = paint.text(
        row.look,
        format!("{}  {:<strength$}", padded(&row.piece, piece), row.strength),
    );
    let end = format!("  {:<span$}  {}", row.span, row.source);
    format!("{start}{middle}{end}").trim_end().to_owned()
}

fn rows(named: &Named<'_>, text: &str) -> Vec<Row> {
    let window = named.window;
    let mut rows: Vec<Row> = (0..window.used())
        .map(|row| content(named, row, text))
        .collect();
    if let Some((id, count)) = window.padding() {
        rows.push(Row {
            look: Look::Faint,
            number: String::new(),
            id: id.to_string(),
            piece: format!("padding × {count}"),
            strength: String::new(),
            span: String::new(),
            source: String::new(),
        });
    }
    rows
}

fn content(named: &Named<'_>, row: usize, text: &str) -> Row {
    let window = named.window;
    let span = window.spans[row];
    let strength = window.strengths[row];
    let look = match span {
        _ if window.is_vector(row) => Look::Vector,
        None => Look::Faint,
        Some(_) => Look::of_strength(strength),
    };
    let pooled = if named.is_pooled(row) { "*" } else { " " };
    let source = span.and_then(|[start, end]| text.get(start..end));
    let source = source.map(|source| format!("`{}`", quoted(source)));
    let place = span.map(|[start, end]| format!("{start}..{end}"));
    Row {
        look,
        number: format!("{row}{pooled}"),
        id: window.shown_id(row),
        piece: window.pieces[row].clone(),
        strength: span.map(|_| short(strength)).unwrap_or_default(),
        span: place.unwrap_or_default(),
        source: source.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manner::Manner;
    use crate::wishes::Wishes;
    use sd_conditioner::{Family, Profile};

    fn shown(text: &str) -> Shown {
        let wishes = Wishes {
            positive: Some(text.to_owned()),
            manner: Manner {
                profile: Some(Profile::A1111),
                ..Manner::default()
            },
            ..Wishes::default()
        };
        Shown::of(&wishes.job().unwrap(), Family::Sd1)
    }

    #[test]
    fn colors_are_only_colors() {
        let shown = shown("a (cat:1.5) [dog] (");
        let plain = text(&shown, Paint::Off);
        let mut colored = text(&shown, Paint::On);
        let looks = ["[1m", "[2m", "[33m  note: ", "[31mcat</w>", "[34mdog</w>"];
        for look in looks {
            assert!(
                colored.contains(&format!("\u{1b}{look}")),
                "{look}: {colored}"
            );
        }
        for code in ["0", "1", "2", "31", "33", "34"] {
            colored = colored.replace(&format!("\u{1b}[{code}m"), "");
        }
        let trimmed = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.trim_end().to_owned())
                .collect()
        };
        assert_eq!(trimmed(&colored), trimmed(&plain));
        assert!(!plain.contains('\u{1b}'));
    }

    #[test]
    fn wide_names_keep_the_columns() {
        let row = |piece: &str| Row {
            look: Look::Vector,
            number: "1 ".to_owned(),
            id: "–".to_owned(),
            piece: piece.to_owned(),
            strength: "1.2".to_owned(),
            span: "0..3".to_owned(),
            source: "`x`".to_owned(),
        };
        let starts = [
            "\u{732b}\u{732b}[0]",
            "cats[0]",
            "\u{1f468}\u{200d}\u{1f467}[0]",
        ]
        .map(|piece| {
            let line = line(&row(piece), [9, 8, 5], Paint::Off);
            columns(line.split("1.2").next().unwrap_or_default())
        });
        assert_eq!(starts, [26; 3]);
    }

    #[test]
    fn what_a_prompt_has_of_the_terminals_language_is_not_spoken() {
        let shown = shown("a \u{1b}[31mcat (");
        assert!(!text(&shown, Paint::Off).contains('\u{1b}'));
    }
}
