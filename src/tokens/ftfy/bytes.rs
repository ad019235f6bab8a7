//! DAMAGED UTF-8 → TEXT. The repairs that ftfy makes between encoding and decoding.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// UTF-8 in which one byte A0 has become a space; sequences that would give unlikely characters are
/// left out (`ALTERED_UTF8_RE`, `ftfy/chardata.py`).
static SPACED: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9] |
        [\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] |
        \xf0 [\x80-\xbf][\x80-\xbf]|\xf0[\x80-\xbf] [\x80-\xbf]|\xf0[\x80-\xbf][\x80-\xbf] ",
    )
});

/// UTF-8 and CESU-8 in which a byte was lost: 1A stands for one that became U+FFFD, and a question
/// mark is one at most once (`LOSSY_UTF8_RE`, `ftfy/chardata.py`).
static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
    constant(
        r"(?-u)[\xc2-\xdf]\x1a|[\xc2-\xc3]\?|
        \xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]|
        \xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]|
        [\xe0-\xef][\x1a?][\x1a\x80-\xbf]|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]|
        [\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]|
        [\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]|
        [\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]|\x1a",
    )
});

/// Compiles a pattern written over several lines.
fn constant(pattern: &str) -> Regex {
    let pattern: String = pattern.split("\n        ").collect();
    Regex::new(&pattern).expect("a constant that a test compiles")
}

/// Gives back the A0 bytes that some program took for spaces (`restore_byte_a0`, `ftfy/fixes.py`).
/// Nothing changes where no sequence calls for it.
pub(super) fn restore_no_break_spaces(bytes: Vec<u8>) -> Vec<u8> {
    if !SPACED.is_match(&bytes) {
        return bytes;
    }
    let bytes = separate_a_grave(&bytes);
    let restored = SPACED.replace_all(&bytes, |found: &regex::bytes::Captures<'_>| -> Vec<u8> {
        found[0]
            .iter()
            .map(|byte| if *byte == b' ' { 0xA0 } else { *byte })
            .collect()
    });
    restored.into_owned()
}

/// "à" alone lost its A0 to the space after the word, which then must stay: C3 20 becomes C3 A0 20,
/// except in the Portuguese words that begin so (`A_GRAVE_WORD_RE`, `ftfy/fixes.py`).
fn separate_a_grave(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut out = Vec::with_capacity(bytes.len() + 4);
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        out.push(*first);
        rest = after;
        if let (0xC3, Some(after)) = (first, rest.strip_prefix(b" "))
            && !WORDS.iter().any(|word| after.starts_with(word))
        {
            out.extend([0xA0, b' ']);
            rest = after;
        }
    }
    out
}

/// Makes U+FFFD of every sequence that lost a byte (`replace_lossy_sequences`, `ftfy/fixes.py`).
pub(super) fn replace_lossy_sequences(bytes: Vec<u8>) -> Vec<u8> {
    if !LOSSY.is_match(&bytes) {
        return bytes;
    }
    LOSSY
        .replace_all(&bytes, "\u{fffd}".as_bytes())
        .into_owned()
}

/// Reads UTF-8, CESU-8's surrogate pairs, and Java's C0 80 for NUL (`utf-8-variants`,
/// `ftfy/bad_codecs/utf8_variants.py`); `None` where the bytes are none of these.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let plain = (0..rest.len())
            .find(|at| is_variant(&rest[*at..]))
            .unwrap_or(rest.len());
        out.push_str(std::str::from_utf8(&rest[..plain]).ok()?);
        rest = &rest[plain..];
        if rest.is_empty() {
            break;
        }
        let (letter, length) = variant(rest)?;
        out.push(letter);
        rest = &rest[length..];
    }
    Some(out)
}

fn is_variant(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xC0, 0x80, ..] | [0xC0, b'\n'] | [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..]
    )
}

/// The character at the start of bytes that plain UTF-8 forbids, and its length. A line feed that
/// ends the bytes passes for the last byte of a sequence, by the nature of Python's `$`.
fn variant(bytes: &[u8]) -> Option<(char, usize)> {
    match *bytes {
        [0xC0, ..] => Some(('\0', 2)),
        [
            0xED,
            a @ 0xA0..=0xAF,
            b @ 0x80..=0xBF,
            0xED,
            c @ 0xB0..=0xBF,
            d,
            ..,
        ] if matches!(d, 0x80..=0xBF) || (d == b'\n' && bytes.len() == 6) => {
            let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
            let high = bits(a, 0x0F, 16) + bits(b, 0x3F, 10);
            let point = 0x1_0000 + high + bits(c, 0x0F, 6) + bits(d, 0x3F, 0);
            Some((char::from_u32(point)?, 6))
        }
        _ => None,
    }
}
