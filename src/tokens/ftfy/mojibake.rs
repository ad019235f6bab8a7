//! MISREAD TEXT → WHAT WAS WRITTEN. `fix_encoding` of ftfy.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::badness::is_bad;
use super::bytes::{decode, replace_lossy_sequences, restore_no_break_spaces};
use super::encodings::{ENCODINGS, Encoding, Name, windows_1252};

/// Repairs text until no step finds anything more (`fix_encoding_and_explain`, `ftfy/__init__.py`).
pub(super) fn fix_encoding(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    while let Some(fixed) = step(&text).filter(|fixed| **fixed != *text) {
        text = Cow::Owned(fixed);
    }
    text
}

/// One step (`_fix_encoding_one_step_and_explain`, `ftfy/__init__.py`).
fn step(text: &str) -> Option<String> {
    if !is_bad(text) {
        return None;
    }
    if let Some(fixed) = ENCODINGS.iter().find_map(|encoding| reread(text, encoding)) {
        return Some(fixed);
    }
    let fixed = fix_inside(text);
    if fixed != text {
        return Some(fixed);
    }
    fix_latin_1(text).or_else(|| {
        text.contains(is_c1)
            .then(|| fix_c1_controls(text).into_owned())
    })
}

/// What the text says if it is UTF-8 that was read in `encoding`.
fn reread(text: &str, encoding: &Encoding) -> Option<String> {
    let mut bytes = encoding.encode(text)?;
    // In Mac OS Roman an en dash before a space would match.
    if encoding.name() != Name::MacRoman {
        bytes = restore_no_break_spaces(bytes);
    }
    if encoding.is_sloppy() {
        bytes = replace_lossy_sequences(bytes);
    }
    decode(&bytes)
}

/// Latin-1 with C1 controls was meant to be Windows-1252, if every byte means something there.
fn fix_latin_1(text: &str) -> Option<String> {
    let open = |letter| matches!(letter, '\u{81}' | '\u{8d}' | '\u{8f}' | '\u{90}' | '\u{9d}');
    let latin_1 = text
        .chars()
        .all(|letter| letter <= '\u{ff}' && !open(letter));
    let fixed = latin_1.then(|| fix_c1_controls(text).into_owned())?;
    (fixed != text).then_some(fixed)
}

fn is_c1(letter: char) -> bool {
    matches!(letter, '\u{80}'..='\u{9f}')
}

/// Reads C1 control characters as Windows-1252 (`fix_c1_controls`, `ftfy/fixes.py`).
pub(super) fn fix_c1_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(is_c1) {
        return Cow::Borrowed(text);
    }
    let fix = |letter: char| match u8::try_from(letter) {
        Ok(byte) if is_c1(letter) => windows_1252(byte),
        Ok(_) | Err(_) => letter,
    };
    Cow::Owned(text.chars().map(fix).collect())
}

/// Repairs what looks like UTF-8 in the middle of other text (`decode_inconsistent_utf8`,
/// `ftfy/fixes.py`).
fn fix_inside(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = None;
    while let Some(first) = rest.chars().next() {
        let hidden = match previous {
            Some(previous) if CLUES.strict.contains(&previous) => 0,
            Some(_) | None => CLUES.sequences(rest),
        };
        let (taken, after) = rest.split_at(hidden.max(first.len_utf8()));
        // A match that is the whole text would come back here for ever.
        if hidden > 0 && taken.len() < text.len() && is_bad(taken) {
            out.push_str(&fix_encoding(taken));
        } else {
            out.push_str(taken);
        }
        previous = taken.chars().next_back();
        rest = after;
    }
    out
}

/// The characters that UTF-8 looks like when it is read in one of the first eight encodings
/// (`UTF8_CLUES`, `ftfy/chardata.py`, where they are listed; they are exactly these bytes' meanings).
struct Clues {
    /// Lead bytes, with how many bytes follow.
    followers: HashMap<char, usize>,
    /// The bytes that follow; a space may have been a no-break space.
    continuation: HashSet<char>,
    /// Those that do not stand for themselves beside mojibake.
    strict: HashSet<char>,
}

/// Spaces, dashes, quotation marks, the bullet and the ellipsis stand for themselves.
const HARMLESS: &str = " –—―‘’‚“”„•…";

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    let mut followers = HashMap::new();
    let mut continuation = HashSet::from([' ']);
    for encoding in ENCODINGS.iter().take(8) {
        // Of the lead bytes of four, only F0 and F3 begin characters that exist.
        for (first, last, count) in [
            (0xC2, 0xDF, 1),
            (0xE0, 0xEF, 2),
            (0xF0, 0xF0, 3),
            (0xF3, 0xF3, 3),
        ] {
            let leads = encoding.characters(first, last).iter();
            followers.extend(leads.map(|letter| (*letter, count)));
        }
        continuation.extend(encoding.characters(0x80, 0xBF));
    }
    let strict = continuation
        .iter()
        .copied()
        .filter(|letter| !HARMLESS.contains(*letter));
    Clues {
        followers,
        strict: strict.collect(),
        continuation,
    }
});

impl Clues {
    /// The length of all sequences that follow each other at the start of `text`.
    fn sequences(&self, text: &str) -> usize {
        let mut length = 0;
        while let Some(sequence) = self.sequence(&text[length..]) {
            length += sequence;
        }
        length
    }

    fn sequence(&self, text: &str) -> Option<usize> {
        let mut letters = text.chars();
        let count = *self.followers.get(&letters.next()?)?;
        for _ in 0..count {
            letters
                .next()
                .filter(|letter| self.continuation.contains(letter))?;
        }
        Some(text.len() - letters.as_str().len())
    }
}
