//! Python's idea of white space, word characters, digits and `float()`.
//!
//! All reference parsers but one are Python programs; where they look at a character, these
//! functions answer as Python 3.11 does (Unicode 14).

/// `str.isspace`, which is also `\s` of a Unicode pattern.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `\w`: letters, numbers and `_`.
///
/// One known difference: combining marks that Unicode counts as alphabetic are word characters here
/// and not in Python.
pub(super) fn is_word(character: char) -> bool {
    character == '_' || (character.is_alphanumeric() && !is_letter_symbol(character))
}

/// Circled and squared letters: alphabetic to Unicode, symbols to Python.
fn is_letter_symbol(character: char) -> bool {
    matches!(u32::from(character),
        0x24b6..=0x24e9 | 0x1f130..=0x1f149 | 0x1f150..=0x1f169 | 0x1f170..=0x1f189)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The zeros of Unicode's decimal digits; the other nine follow each.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// The value of a decimal digit of any script (`\d`), as its ASCII character.
pub(super) fn decimal(character: char) -> Option<char> {
    if character.is_ascii() {
        return character.is_ascii_digit().then_some(character);
    }
    let code = u32::from(character);
    let after = ZEROS.partition_point(|zero| *zero <= code);
    let value = code - ZEROS.get(after.checked_sub(1)?)?;
    char::from_digit(value, 10)
}

/// `float(text)`: surrounding white space, sign, exponent, `inf`, `nan`, `1_0` and digits of any
/// script are accepted; `None` is Python's `ValueError`.
pub(super) fn float(text: &str) -> Option<f64> {
    let mut ascii = String::new();
    for character in text.trim().chars() {
        match decimal(character) {
            Some(digit) => ascii.push(digit),
            None if character.is_ascii() => ascii.push(character),
            None => return None,
        }
    }
    without_underscores(&ascii)?.parse().ok()
}

/// Removes underscores, each of which must stand between two digits.
fn without_underscores(ascii: &str) -> Option<String> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = ascii.as_bytes();
    let mut kept = String::with_capacity(ascii.len());
    for (index, character) in ascii.char_indices() {
        if character != '_' {
            kept.push(character);
        } else if !(index > 0 && is_digit(bytes.get(index - 1)) && is_digit(bytes.get(index + 1))) {
            return None;
        }
    }
    Some(kept)
}

/// The places of `word` in `text` where it stands between word boundaries (`\bword\b`).
pub(super) fn find_words(text: &str, word: &str) -> Vec<usize> {
    let stands_alone = |at: &usize| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    };
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(stands_alone)
        .collect()
}
