//! `--html`: one self-contained page. No scripts, nothing from elsewhere, every text escaped.

use std::fmt::Write as _;

use super::Named;
use super::shown::{Encoder, Shown};
use crate::ui::short;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;\
color:#222;background:#fff}\
h1{font-size:1.3em}h2{font-size:1.1em;margin-top:2em}h3{font-size:1em}\
pre{white-space:pre-wrap;background:#f4f4f2;padding:.6em;border-radius:4px}\
table{border-collapse:collapse}td,th{padding:.1em .8em .1em 0;text-align:left;\
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
code{font-family:ui-monospace,monospace}tr.special{color:#888}tr.pooled{font-weight:bold}\
tr.vector{color:#186a3b}.note{color:#8a5a00}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}pre{background:#2a2a2a}\
tr.vector{color:#7bd3a0}.note{color:#e0b050}}";

/// The farthest that a strength is told apart by its shade.
const STRONGEST: f64 = 1.0;

/// The whole page.
pub(super) fn page(shown: &Shown) -> String {
    let title = escaped(&shown.title());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for (title, encoders) in shown.sections() {
        for encoder in encoders {
            let title = escaped(&format!("{title}, {}", encoder.title()));
            let _ = write!(page, "<h2>{title}</h2>\n{}", section(encoder));
        }
    }
    page += &notes(shown.notes().iter().cloned());
    page + "</body>\n</html>\n"
}

fn section(encoder: &Encoder) -> String {
    let mut text = format!("<pre>{}</pre>\n", escaped(&encoder.text));
    for named in encoder.named_windows() {
        let count = named.window.tokens;
        let _ = writeln!(text, "<h3>{}: {count} of 75 ids</h3>", escaped(&named.name));
        text += &table(&named, &encoder.text);
    }
    let all = encoder.notes.iter();
    text + &notes(all.map(|note| note.about(&encoder.text)))
}

fn notes(all: impl Iterator<Item = String>) -> String {
    let all = all.map(|note| format!("<li class=\"note\">{}</li>\n", escaped(&note)));
    let all: String = all.collect();
    if all.is_empty() {
        return all;
    }
    format!("<ul>\n{all}</ul>\n")
}

fn table(named: &Named<'_>, text: &str) -> String {
    let window = named.window;
    let mut table = "<table>\n<tr><th class=\"n\">row</th><th class=\"n\">id</th><th>piece</th>\
         <th class=\"n\">strength</th><th>bytes</th><th>text</th></tr>\n"
        .to_owned();
    for row in 0..window.used() {
        table += &line(named, row, text);
    }
    if let Some((id, count)) = window.padding() {
        let _ = writeln!(
            table,
            "<tr class=\"special\"><td></td><td class=\"n\">{id}</td><td>padding × {count}</td></tr>"
        );
    }
    table + "</table>\n"
}

fn line(named: &Named<'_>, row: usize, text: &str) -> String {
    let window = named.window;
    let strength = window.strengths[row];
    let classes = classes(named, row);
    let id = window.shown_id(row);
    let piece = escaped(&window.pieces[row]);
    let start =
        format!("<tr class=\"{classes}\"><td class=\"n\">{row}</td><td class=\"n\">{id}</td>");
    let (number, place, source) = match window.spans[row] {
        None => Default::default(),
        Some([start, end]) => (
            short(strength),
            format!("{start}–{end}"),
            escaped(text.get(start..end).unwrap_or_default()),
        ),
    };
    format!(
        "{start}<td><code{}>{piece}</code></td><td class=\"n\">{number}</td><td>{place}</td>\
         <td><code>{source}</code></td></tr>\n",
        shade(strength)
    )
}

/// What the style sheet tells apart.
fn classes(named: &Named<'_>, row: usize) -> String {
    let is_special = named.window.spans[row].is_none();
    let classes = [
        (is_special, "special"),
        (named.window.is_vector(row), "vector"),
        (named.is_pooled(row), "pooled"),
    ];
    let classes = classes.into_iter().filter(|(is, _)| *is);
    let classes: Vec<&str> = classes.map(|(_, name)| name).collect();
    classes.join(" ")
}

/// Red above 1, blue below it.
fn shade(strength: f64) -> String {
    let away = (strength - 1.0).clamp(-STRONGEST, STRONGEST);
    if away == 0.0 || away.is_nan() {
        return String::new();
    }
    let color = if away > 0.0 { "230,60,40" } else { "40,90,230" };
    let share = 0.15 + 0.45 * away.abs();
    format!(" style=\"background:rgba({color},{share:.2})\"")
}

/// Text that is text, in elements and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(sign),
            // Not allowed in a page, not even by number.
            sign if sign.is_control() => out.push('\u{fffd}'),
            sign => out.push(sign),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_is_escaped() {
        assert_eq!(
            escaped("<a href=\"x\">'&amp;"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;amp;"
        );
        assert_eq!(
            escaped("a\u{0}\u{1b}\r\n猫"),
            "a\u{fffd}\u{fffd}\u{fffd}\n猫"
        );
    }

    #[test]
    fn shades() {
        assert_eq!(shade(1.0), "");
        assert_eq!(shade(f64::NAN), "");
        assert_eq!(shade(1.5), " style=\"background:rgba(230,60,40,0.38)\"");
        assert_eq!(
            shade(f64::NEG_INFINITY),
            " style=\"background:rgba(40,90,230,0.60)\""
        );
    }
}
