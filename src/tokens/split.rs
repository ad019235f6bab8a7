//! CLEAN TEXT → WORDS. The pattern of every CLIP tokenizer, in its three readings.

use unicode_general_category::{GeneralCategory, get_general_category};

use super::{END_OF_TEXT, START_OF_TEXT, TokenId};

/// The specials as OpenAI and Hugging Face spell them.
pub(super) const OPEN_AI_SPECIALS: [(&str, TokenId); 2] = [
    ("<|startoftext|>", START_OF_TEXT),
    ("<|endoftext|>", END_OF_TEXT),
];

/// The specials as `open_clip` spells them (`src/open_clip/tokenizer.py`).
pub(super) const OPEN_CLIP_SPECIALS: [(&str, TokenId); 2] = [
    ("<start_of_text>", START_OF_TEXT),
    ("<end_of_text>", END_OF_TEXT),
];

/// How a tokenizer reads the pattern
/// `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Python's `regex` module, ignoring case, after the alternatives of these specials
    /// (`clip/simple_tokenizer.py`; `open_clip`; transformers 4, `tokenization_clip.py`).
    Python([(&'static str, TokenId); 2]),
    /// The `tokenizers` crate: case matters. Specials were cut before; where lower-casing makes
    /// another, the pattern takes it whole, and the byte-level step that follows cuts it into words
    /// (`CLIPTokenizer` of transformers 5, `tokenization_clip.py`).
    Rust,
    /// C++ over bytes with the C locale's classes (stable-diffusion.cpp,
    /// `src/tokenizers/clip_tokenizer.cpp`).
    Bytes,
}

/// One match of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A special spelled in the text.
    Special(TokenId),
    /// Something to merge.
    Word(&'a str),
}

/// All matches of the pattern in a text. What no alternative matches (white space) is dropped.
pub(super) struct Pieces<'a> {
    rest: &'a str,
    /// What follows `rest`, while that is one match to be cut further.
    later: Option<&'a str>,
    pattern: Pattern,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(text: &'a str, pattern: Pattern) -> Pieces<'a> {
        Pieces {
            rest: text,
            later: None,
            pattern,
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }

    /// Takes the special that the rest begins with. One spelled with a long s is matched as a whole
    /// too, but is not the special: it goes to the merges as it is.
    fn special(&mut self) -> Option<Piece<'a>> {
        let Pattern::Python(specials) = self.pattern else {
            return None;
        };
        let (length, id) = specials.into_iter().find_map(|(name, id)| {
            let length = length_of_match(self.rest, name, true)?;
            Some((length, (length == name.len()).then_some(id)))
        })?;
        let word = self.take(length);
        Some(id.map_or(Piece::Word(word), Piece::Special))
    }

    /// Holds back what follows a special that will be cut into words.
    fn hold(&mut self) {
        let names = OPEN_AI_SPECIALS.map(|(name, _)| name);
        let length = names
            .into_iter()
            .find_map(|name| length_of_match(self.rest, name, false));
        if let (Pattern::Rust, None, Some(length)) = (self.pattern, self.later, length) {
            self.later = Some(&self.rest[length..]);
            self.rest = &self.rest[..length];
        }
    }

    fn contraction(&self) -> Option<usize> {
        let long_s = matches!(self.pattern, Pattern::Python(_));
        let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        endings
            .into_iter()
            .find_map(|ending| length_of_match(self.rest, ending, long_s))
    }

    /// The length of the longest start of the rest that is all of this kind.
    fn run(&self, kind: Kind) -> usize {
        let other = |letter| kind_of(letter, self.pattern) != kind;
        self.rest.find(other).unwrap_or(self.rest.len())
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            self.rest = self.later.take()?;
        }
        let space = self.run(Kind::Space);
        self.take(space);
        let first = self.rest.chars().next()?;
        if first == '<' {
            if let Some(special) = self.special() {
                return Some(special);
            }
            self.hold();
        }
        let contraction = if first == '\'' {
            self.contraction()
        } else {
            None
        };
        let length = contraction.unwrap_or_else(|| match kind_of(first, self.pattern) {
            Kind::Digit => first.len_utf8(),
            kind @ (Kind::Letter | Kind::Other | Kind::Space) => self.run(kind),
        });
        Some(Piece::Word(self.take(length)))
    }
}

/// The bytes of `text` that match the lower-case `name`; with `long_s`, U+017F counts as an s (it
/// folds to one, and is the only character that does so after lower-casing).
fn length_of_match(text: &str, name: &str, long_s: bool) -> Option<usize> {
    let mut letters = text.char_indices();
    for wanted in name.chars() {
        let (_, found) = letters.next()?;
        if found != wanted && !(long_s && wanted == 's' && found == '\u{17f}') {
            return None;
        }
    }
    Some(text.len() - letters.as_str().len())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Digit,
    Other,
}

fn kind_of(letter: char, pattern: Pattern) -> Kind {
    match letter {
        'a'..='z' | 'A'..='Z' => Kind::Letter,
        '0'..='9' => Kind::Digit,
        ' ' | '\t'..='\r' => Kind::Space,
        '\0'..='\x7f' => Kind::Other,
        _ => match pattern {
            Pattern::Bytes => Kind::Other,
            // Ignoring case, `regex` takes it for a letter and for none: no alternative matches.
            Pattern::Python(_) if letter == '\u{345}' => Kind::Space,
            Pattern::Python(_) | Pattern::Rust => kind_beyond_ascii(letter),
        },
    }
}

fn kind_beyond_ascii(letter: char) -> Kind {
    use GeneralCategory as Category;
    if letter.is_whitespace() {
        return Kind::Space;
    }
    match get_general_category(letter) {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter => Kind::Letter,
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => Kind::Digit,
        _ => Kind::Other,
    }
}
