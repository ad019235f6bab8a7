//! TEXT ⇄ BYTES in the single-byte encodings that text is mistaken for.

use std::sync::LazyLock;

use super::charmaps;

/// A single-byte encoding; every byte means something in it.
pub(super) struct Encoding {
    name: Name,
    /// What the bytes from 0x80 mean.
    upper: Vec<char>,
    /// The same, sorted by character.
    bytes: Vec<(char, u8)>,
}

/// Which encoding, in the order in which ftfy tries them (`CHARMAP_ENCODINGS`, `ftfy/chardata.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Latin1,
    Windows1252,
    Windows1251,
    Windows1250,
    Windows1253,
    Windows1254,
    Windows1257,
    Iso8859Part2,
    MacRoman,
    CodePage437,
}

/// All encodings, in the order of [`Name`].
pub(super) static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    vec![
        Encoding::new(Name::Latin1, ('\u{80}'..='\u{ff}').collect()),
        Encoding::new(Name::Windows1252, charmaps::WINDOWS_1252.chars().collect()),
        Encoding::new(Name::Windows1251, charmaps::WINDOWS_1251.chars().collect()),
        Encoding::new(Name::Windows1250, charmaps::WINDOWS_1250.chars().collect()),
        Encoding::new(Name::Windows1253, charmaps::WINDOWS_1253.chars().collect()),
        Encoding::new(Name::Windows1254, charmaps::WINDOWS_1254.chars().collect()),
        Encoding::new(Name::Windows1257, charmaps::WINDOWS_1257.chars().collect()),
        Encoding::new(Name::Iso8859Part2, charmaps::ISO_8859_2.chars().collect()),
        Encoding::new(Name::MacRoman, charmaps::MAC_ROMAN.chars().collect()),
        Encoding::new(Name::CodePage437, charmaps::CODE_PAGE_437.chars().collect()),
    ]
});

/// The byte that stands for U+FFFD in the sloppy encodings (`ftfy/bad_codecs/sloppy.py`).
const SUBSTITUTE: u8 = 0x1A;

impl Encoding {
    fn new(name: Name, upper: Vec<char>) -> Encoding {
        let mut bytes: Vec<(char, u8)> = upper.iter().copied().zip(0x80..=0xFF).collect();
        bytes.sort_unstable();
        Encoding { name, upper, bytes }
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// The characters of the bytes from `first` to `last`, both at least 0x80.
    pub(super) fn characters(&self, first: u8, last: u8) -> &[char] {
        &self.upper[usize::from(first) - 0x80..=usize::from(last) - 0x80]
    }

    /// True for the Windows code pages: "sloppy" in ftfy's words, as their open bytes got a meaning,
    /// and U+FFFD a byte.
    pub(super) fn is_sloppy(&self) -> bool {
        match self.name {
            Name::Windows1252
            | Name::Windows1251
            | Name::Windows1250
            | Name::Windows1253
            | Name::Windows1254
            | Name::Windows1257 => true,
            Name::Latin1 | Name::Iso8859Part2 | Name::MacRoman | Name::CodePage437 => false,
        }
    }

    /// The bytes of `text`; `None` where a character has none.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|letter| self.byte(letter)).collect()
    }

    fn byte(&self, letter: char) -> Option<u8> {
        match letter {
            '\u{1a}' if self.is_sloppy() => None,
            '\u{fffd}' if self.is_sloppy() => Some(SUBSTITUTE),
            '\0'..='\x7f' => u8::try_from(letter).ok(),
            _ => {
                let found = self
                    .bytes
                    .binary_search_by_key(&letter, |(letter, _)| *letter)
                    .ok()?;
                Some(self.bytes[found].1)
            }
        }
    }
}

/// What a byte from 0x80 to 0x9F means in Windows-1252, as web browsers read it: the five open bytes
/// stay control characters.
pub(crate) fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => ENCODINGS[1].upper[usize::from(byte) - 0x80],
        _ => char::from(byte),
    }
}
