//! TEXT → TEXT WITHOUT ACCIDENTS: what ftfy 6.3.1 does with its defaults, character for character.
//!
//! OpenAI's tokenizer, `open_clip`'s, and transformers 4's (where ftfy is installed) run it first, so
//! the ids of a prompt with a curly quote depend on it. `README.md` in this folder says what of it
//! comes from ftfy.

mod badness;
mod bytes;
mod charmaps;
mod encodings;
mod mojibake;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

pub(super) use encodings::windows_1252;

use super::clean::{nfc, then};
use super::html;

/// How many characters are looked at together (`max_decode_length`, `ftfy/__init__.py`).
const LONGEST_SEGMENT: usize = 1_000_000;

/// The longest entity name that ftfy looks at (`HTML_ENTITY_RE`, `ftfy/chardata.py`).
const LONGEST_ENTITY: usize = 24;

/// ftfy's `fix_text` with its defaults: each line on its own, and entities only up to the first line
/// that holds a `<`.
pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    let plain = |byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\x0c') && byte != b'&';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut unescaping = true;
    let mut out = String::with_capacity(text.len());
    for segment in text.split_inclusive('\n').flat_map(segments) {
        unescaping &= !segment.contains('<');
        out.push_str(&fix_segment(segment, unescaping));
    }
    Cow::Owned(out)
}

/// Cuts a line that is too long.
fn segments(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = line
            .char_indices()
            .nth(LONGEST_SEGMENT)
            .map_or(line.len(), |(at, _)| at);
        let (segment, rest) = line.split_at(end);
        line = rest;
        (!segment.is_empty()).then_some(segment)
    })
}

/// All fixes, again and again until none changes anything (`fix_and_explain`, `ftfy/__init__.py`).
fn fix_segment(segment: &str, unescaping: bool) -> String {
    let mut text = segment.to_owned();
    loop {
        let mut fixed = Cow::Borrowed(text.as_str());
        if unescaping {
            fixed = unescape_html(&text);
        }
        fixed = then(fixed, mojibake::fix_encoding);
        fixed = then(fixed, mojibake::fix_c1_controls);
        fixed = then(fixed, replace_characters);
        fixed = then(fixed, fix_line_breaks);
        fixed = then(fixed, remove_terminal_escapes);
        fixed = then(fixed, remove_control_characters);
        fixed = then(fixed, nfc);
        let done = fixed == text;
        text = fixed.into_owned();
        if done {
            return text;
        }
    }
}

/// Entities with their semicolon only, but also those of Latin letters written in capitals
/// (`unescape_html`, `ftfy/fixes.py`).
fn unescape_html(text: &str) -> Cow<'_, str> {
    html::replace(text, '&', |rest| {
        let body = &rest['&'.len_utf8()..];
        let name = body.strip_prefix('#').unwrap_or(body);
        let letters = name.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if !(1..=LONGEST_ENTITY).contains(&letters) || !name[letters..].starts_with(';') {
            return None;
        }
        let length = rest.len() - name.len() + letters + ';'.len_utf8();
        Some((length, entity(&rest[..length])?))
    })
}

/// What a whole entity (`&eacute;`) stands for; `None` where it should stay.
fn entity(entity: &str) -> Option<String> {
    let name = entity.strip_prefix('&')?;
    if let Some(known) = html::named(name) {
        return Some(known.to_owned());
    }
    let unescaped = html::unescape(entity);
    if name.starts_with('#') {
        return (!unescaped.contains(';')).then(|| unescaped.into_owned());
    }
    let shouted = !name.bytes().any(|byte| byte.is_ascii_lowercase()) && unescaped == entity;
    let quiet = html::named(&name.to_ascii_lowercase()).filter(|_| shouted)?;
    Some(quiet.to_uppercase())
}

/// Takes apart Latin ligatures, gives half and full width forms their ordinary width, and makes
/// quotation marks straight (`fix_latin_ligatures`, `fix_character_width`, `uncurl_quotes`).
fn replace_characters(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(letter).nfkc()),
            _ => match ligature(letter) {
                Some(letters) => out.push_str(letters),
                None => out.push(uncurled(letter)),
            },
        }
    }
    Cow::Owned(out)
}

/// The letters of a ligature that typesetting or an old encoding made (`LIGATURES`,
/// `ftfy/chardata.py`). U+0149 becomes what a straightened quote makes of its first half.
fn ligature(letter: char) -> Option<&'static str> {
    Some(match letter {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        _ => return typeset_ligature(letter),
    })
}

fn typeset_ligature(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

fn uncurled(letter: char) -> char {
    match letter {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => letter,
    }
}

/// Every kind of line break becomes a line feed (`fix_line_breaks`, `ftfy/fixes.py`).
fn fix_line_breaks(text: &str) -> Cow<'_, str> {
    let odd = ['\r', '\u{2028}', '\u{2029}', '\u{85}'];
    if text.contains(odd) {
        Cow::Owned(text.replace("\r\n", "\n").replace(odd, "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Drops the escape sequences that color text in a terminal (`ANSI_RE`, `ftfy/fixes.py`).
fn remove_terminal_escapes(text: &str) -> Cow<'_, str> {
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("a constant that a test compiles")
    });
    if text.contains('\x1b') {
        ESCAPE.replace_all(text, "")
    } else {
        Cow::Borrowed(text)
    }
}

/// Drops control characters that nobody means to write (`_build_control_char_mapping`,
/// `ftfy/chardata.py`); joiners and direction marks stay.
fn remove_control_characters(text: &str) -> Cow<'_, str> {
    let unwanted = |letter: char| {
        matches!(
            letter,
            '\0'..='\x08'
                | '\x0b'
                | '\x0e'..='\x1f'
                | '\x7f'
                | '\u{206a}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffc}'
        )
    };
    if text.contains(unwanted) {
        Cow::Owned(text.chars().filter(|letter| !unwanted(*letter)).collect())
    } else {
        Cow::Borrowed(text)
    }
}
