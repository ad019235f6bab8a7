//! CHARACTER REFERENCES → CHARACTERS, as Python's `html.unescape` reads them.
//!
//! `entities.txt` is the table of HTML's named character references (WHATWG,
//! <https://html.spec.whatwg.org/entities.json>), as Python's `html.entities.html5` has it: a name,
//! with its semicolon unless HTML lets it be left out, and the code points.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::ftfy;

/// The longest name that Python looks at (`{1,32}` in `html/__init__.py`).
const LONGEST_NAME: usize = 32;

static ENTITIES: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    include_str!("entities.txt")
        .lines()
        .filter_map(entity_of_line)
        .collect()
});

fn entity_of_line(line: &'static str) -> Option<(&'static str, String)> {
    let (name, points) = line.split_once(' ')?;
    let points = points
        .split(' ')
        .map(|point| u32::from_str_radix(point, 16).ok());
    Some((
        name,
        points
            .map(|point| point.and_then(char::from_u32))
            .collect::<Option<_>>()?,
    ))
}

/// What the entity of this name (`amp;`, `amp`) stands for.
pub(super) fn named(name: &str) -> Option<&'static str> {
    ENTITIES.get(name).map(String::as_str)
}

/// Python's `html.unescape` (`Lib/html/__init__.py`).
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, '&', |rest| {
        numeric(rest).or_else(|| longest_name(rest))
    })
}

/// Replaces every match that begins with `first`: `read` is given the text from there, and returns
/// how many bytes of it match and what takes their place.
pub(super) fn replace(
    text: &str,
    first: char,
    read: impl Fn(&str) -> Option<(usize, String)>,
) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text[at..].find(first) {
        let start = at + found;
        at = start + first.len_utf8();
        if let Some((length, replacement)) = read(&text[start..]) {
            out.push_str(&text[copied..start]);
            out.push_str(&replacement);
            at = start + length;
            copied = at;
        }
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(out + &text[copied..]),
    }
}

/// `&#1234;` or `&#x12ab;`, with or without the semicolon.
fn numeric(text: &str) -> Option<(usize, String)> {
    let body = text.strip_prefix("&#")?;
    let (digits, radix) = match body.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (body, 10),
    };
    let end = digits
        .find(|digit: char| !digit.is_digit(radix))
        .unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    // Too many digits to count are too many for a character.
    let point = u32::from_str_radix(&digits[..end], radix).unwrap_or(u32::MAX);
    let semicolon = usize::from(digits[end..].starts_with(';'));
    let length = text.len() - digits.len() + end + semicolon;
    Some((
        length,
        character(point).map(String::from).unwrap_or_default(),
    ))
}

/// What a number stands for: nothing for code points that HTML forbids.
fn character(point: u32) -> Option<char> {
    match point {
        0 | 0xD800..=0xDFFF | 0x11_0000.. => Some('\u{fffd}'),
        0x80..=0x9F => point.try_into().ok().map(ftfy::windows_1252),
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => None,
        _ if point & 0xFFFE == 0xFFFE => None,
        _ => char::from_u32(point),
    }
}

/// `&name;`, or the longest start of a name that needs no semicolon.
fn longest_name(text: &str) -> Option<(usize, String)> {
    let body = &text['&'.len_utf8()..];
    let stops = |letter: char| matches!(letter, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let ends: Vec<usize> = body
        .char_indices()
        .take_while(|(_, letter)| !stops(*letter))
        .take(LONGEST_NAME)
        .map(|(at, letter)| at + letter.len_utf8())
        .collect();
    let whole = *ends.last()?;
    let closed = body[whole..].starts_with(';').then_some(whole + 1);
    // Python tries the whole, then starts of at least two characters.
    let starts = ends.iter().skip(1).rev().copied();
    let tried = closed
        .into_iter()
        .chain(closed.is_none().then_some(whole))
        .chain(starts);
    tried
        .into_iter()
        .find_map(|end| Some(('&'.len_utf8() + end, named(&body[..end])?.to_owned())))
}
