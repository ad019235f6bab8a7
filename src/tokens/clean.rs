//! TEXT → CLEAN TEXT. One function for each reference tokenizer.
//!
//! The references also join runs of white space and strip the ends. That is left out here: the
//! pattern drops all white space, and nothing before it looks at how much there is.

use std::borrow::Cow;

use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::split::{OPEN_AI_SPECIALS, OPEN_CLIP_SPECIALS, Pattern};
use super::unicode::{is_later_than_14, is_normalized_since_9};
use super::{Cleaner, TokenId, TokenRule, ftfy, html};

/// What a text consists of after cleaning.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// A special that was cut out.
    Special(TokenId),
    /// Clean text.
    Text(&'a str),
}

/// A literal that is cut out of text, and its id.
type Special = (&'static str, TokenId);

/// `!` as a padding token: the first id of the vocabulary.
const BANG: Special = ("!", 0);

/// How the tokenizer behind a cleaner cuts clean text into words.
pub(super) fn pattern(cleaner: Cleaner) -> Pattern {
    match cleaner {
        Cleaner::OpenAi | Cleaner::HfSlowFtfy | Cleaner::HfSlow => {
            Pattern::Python(OPEN_AI_SPECIALS)
        }
        Cleaner::OpenClip => Pattern::Python(OPEN_CLIP_SPECIALS),
        Cleaner::HfFast | Cleaner::HfFast4 => Pattern::Rust,
        Cleaner::SdCpp => Pattern::Bytes,
    }
}

/// Cuts `text` at the specials of the rule, cleans what lies between, and hands on all parts in order.
pub(super) fn parts(text: &str, rule: TokenRule, mut take: impl FnMut(Part<'_>)) {
    let (before, after) = specials(rule);
    cut(text, &before, |part| match part {
        Part::Special(id) => take(Part::Special(id)),
        Part::Text(text) => cut(&clean(text, rule.cleaner), &after, &mut take),
    });
}

/// The literals that are cut out before cleaning, and after it.
///
/// transformers 4's slow class cuts all added tokens first (`PreTrainedTokenizer.tokenize`). The
/// `tokenizers` crate cuts those with `normalized: false` first and the others after normalizing;
/// in transformers 5, `<|endoftext|>` is of the first sort only where it is also the padding token.
/// stable-diffusion.cpp cuts after normalizing (`normalize_before_split`). OpenAI's and `open_clip`'s
/// specials are alternatives of the pattern instead.
fn specials(rule: TokenRule) -> (Vec<Special>, Vec<Special>) {
    let [start, end] = OPEN_AI_SPECIALS;
    let (mut before, after) = match rule.cleaner {
        Cleaner::OpenAi | Cleaner::OpenClip => (vec![], vec![]),
        Cleaner::HfSlowFtfy | Cleaner::HfSlow => (vec![start, end], vec![]),
        Cleaner::HfFast if !rule.bang_is_special => (vec![end], vec![start]),
        Cleaner::HfFast | Cleaner::HfFast4 | Cleaner::SdCpp => (vec![], vec![start, end]),
    };
    before.extend(rule.bang_is_special.then_some(BANG));
    (before, after)
}

/// Splits at every occurrence of a special, leftmost first. Hands on no empty text.
fn cut(mut text: &str, specials: &[Special], mut take: impl FnMut(Part<'_>)) {
    let earliest = |text: &str| {
        let found = specials
            .iter()
            .filter_map(|(name, id)| Some((text.find(name)?, *name, *id)));
        found.min_by_key(|(at, _, _)| *at)
    };
    while let Some((at, name, id)) = earliest(text) {
        if at > 0 {
            take(Part::Text(&text[..at]));
        }
        take(Part::Special(id));
        text = &text[at + name.len()..];
    }
    if !text.is_empty() {
        take(Part::Text(text));
    }
}

fn clean(text: &str, cleaner: Cleaner) -> Cow<'_, str> {
    match cleaner {
        Cleaner::OpenAi | Cleaner::OpenClip => open_ai(text),
        Cleaner::HfSlowFtfy => hf_slow_ftfy(text),
        Cleaner::HfSlow => hf_slow(text),
        Cleaner::HfFast | Cleaner::HfFast4 => hf_fast(text),
        Cleaner::SdCpp => Cow::Owned(text.to_ascii_lowercase()),
    }
}

/// `basic_clean`, `whitespace_clean` and `lower()` of `clip/simple_tokenizer.py`; `_clean_lower` of
/// `open_clip/tokenizer.py` is the same.
fn open_ai(text: &str) -> Cow<'_, str> {
    let text = ftfy::fix_text(text);
    let text = then(text, html::unescape);
    let text = then(text, html::unescape);
    lower(text)
}

/// `whitespace_clean(self.fix_text(text)).lower()` of transformers 4, `tokenization_clip.py`.
fn hf_slow_ftfy(text: &str) -> Cow<'_, str> {
    lower(ftfy::fix_text(text))
}

/// `BasicTokenizer` as `CLIPTokenizer` sets it up where ftfy is not installed (transformers 4,
/// `tokenization_clip.py`): clean, set ideographs apart, NFC, lower case.
fn hf_slow(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r'))
    {
        return lower(Cow::Borrowed(text));
    }
    let mut spaced = String::with_capacity(text.len() + 16);
    for letter in text.chars().filter(|letter| !is_dropped(*letter)) {
        if is_ideograph(letter) {
            spaced.extend([' ', letter, ' ']);
        } else {
            spaced.push(letter);
        }
    }
    Cow::Owned(lower(then(Cow::Owned(spaced), nfc)).into_owned())
}

/// NUL, U+FFFD, and every category C that is no line break or tab (`_clean_text`, `_is_control`).
/// The category is that of Python's Unicode: to 3.11, an emoji of 2022 is a control character.
fn is_dropped(letter: char) -> bool {
    use GeneralCategory as Category;
    let category = get_general_category(letter);
    let other = matches!(
        category,
        Category::Control
            | Category::Format
            | Category::PrivateUse
            | Category::Surrogate
            | Category::Unassigned
    ) || is_later_than_14(letter);
    letter == '\u{fffd}' || (other && !matches!(letter, '\t' | '\n' | '\r'))
}

/// The blocks of `_is_chinese_char`.
fn is_ideograph(letter: char) -> bool {
    matches!(
        letter,
        '\u{4E00}'..='\u{9FFF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B820}'..='\u{2CEAF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

/// The normalizers that transformers gives a `CLIPTokenizer` (`CLIPConverter`,
/// `convert_slow_tokenizer.py`): NFC, white space, lower case character by character.
fn hf_fast(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return lower(Cow::Borrowed(text));
    }
    let normal = nfc_without(text, is_normalized_since_9);
    Cow::Owned(normal.chars().flat_map(char::to_lowercase).collect())
}

/// Python's `str.lower`: full case mapping with the final sigma, which is what Rust's does, of the letters that
/// it knows.
fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.is_ascii() {
        let parts = text.split_inclusive(is_later_than_14);
        let lowered = parts.map(|part| {
            let (known, later) = without_last(part, is_later_than_14);
            known.to_lowercase() + later
        });
        Cow::Owned(lowered.collect())
    } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        text
    }
}

/// Python's normalization form C.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    nfc_without(text, is_later_than_14)
}

/// Normalization form C by a version of Unicode that knows no mark or letter for which `is_later`: such a one stays
/// where it is.
fn nfc_without(text: &str, is_later: fn(char) -> bool) -> Cow<'_, str> {
    if is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let parts = text.split_inclusive(is_later);
    let normal = parts.flat_map(|part| {
        let (known, later) = without_last(part, is_later);
        known.nfc().chain(later.chars())
    });
    Cow::Owned(normal.collect())
}

/// A part without its last character, and that one, if it is such a one.
fn without_last(part: &str, is_such: fn(char) -> bool) -> (&str, &str) {
    let last = part.chars().next_back().filter(|last| is_such(*last));
    part.split_at(part.len() - last.map_or(0, char::len_utf8))
}

/// Applies a step that may leave its input as it is.
pub(super) fn then<'a>(
    text: Cow<'a, str>,
    step: impl for<'b> Fn(&'b str) -> Cow<'b, str>,
) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => step(text),
        Cow::Owned(text) => Cow::Owned(step(&text).into_owned()),
    }
}
