//! The text as the grammar sees it: characters, each with its place in the source.

use std::ops::Range;

use crate::prompt::python;

/// Owned characters. `at` has one entry more than `characters`: the end.
pub(super) struct Characters {
    characters: Vec<char>,
    at: Vec<usize>,
}

impl Characters {
    /// The first thing compel does: a comma and a character that is no white space right behind it
    /// get a space between them. That character is not looked at again, so `,,a` becomes `, ,a`.
    pub(super) fn of(text: &str) -> Characters {
        let mut made = Characters {
            characters: Vec::new(),
            at: Vec::new(),
        };
        let mut rest = text.char_indices();
        while let Some((at, character)) = rest.next() {
            made.push(character, at);
            let next = rest
                .clone()
                .next()
                .filter(|(_, next)| !python::is_space(*next));
            if let (',', Some((at, next))) = (character, next) {
                made.push(' ', at);
                made.push(next, at);
                rest.next();
            }
        }
        made.at.push(text.len());
        made
    }

    /// The inside of a quoted string, in which pyparsing turns `\n`, `\t`, `\r` and `\f` into the
    /// white space they stand for.
    pub(super) fn unquoted(view: View<'_>) -> Characters {
        let mut made = Characters {
            characters: Vec::new(),
            at: Vec::new(),
        };
        let mut index = 0;
        while let Some(&character) = view.characters.get(index) {
            let escaped = match view.characters.get(index + 1) {
                Some('n' | 't' | 'r') if character == '\\' => Some(' '),
                Some('f') if character == '\\' => Some('\u{c}'),
                _ => None,
            };
            made.push(escaped.unwrap_or(character), view.at[index]);
            index += 1 + usize::from(escaped.is_some());
        }
        made.at.push(view.at[view.len()]);
        made
    }

    /// Form feeds and vertical tabs made spaces: the grammar has no place for them.
    pub(super) fn without_controls(mut self) -> Characters {
        let is_control = |character: &&mut char| matches!(**character, '\u{b}' | '\u{c}');
        self.characters
            .iter_mut()
            .filter(is_control)
            .for_each(|character| *character = ' ');
        self
    }

    fn push(&mut self, character: char, at: usize) {
        self.characters.push(character);
        self.at.push(at);
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            characters: &self.characters,
            at: &self.at,
        }
    }
}

/// A stretch of characters that is read as if there were nothing around it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    characters: &'a [char],
    at: &'a [usize],
}

impl<'a> View<'a> {
    pub(super) fn len(self) -> usize {
        self.characters.len()
    }

    pub(super) fn get(self, index: usize) -> Option<char> {
        self.characters.get(index).copied()
    }

    pub(super) fn part(self, range: Range<usize>) -> View<'a> {
        View {
            characters: &self.characters[range.clone()],
            at: &self.at[range.start..=range.end],
        }
    }

    pub(super) fn text(self, range: Range<usize>) -> String {
        self.characters[range].iter().collect()
    }

    /// Where a stretch stands in the source.
    pub(super) fn span(self, range: Range<usize>) -> Range<usize> {
        self.at[range.start]..self.at[range.end].max(self.at[range.start])
    }

    pub(super) fn is_blank(self) -> bool {
        self.characters
            .iter()
            .all(|character| python::is_space(*character))
    }

    /// The first index from `index` on whose character is not what pyparsing skips.
    pub(super) fn skip_space(self, index: usize) -> usize {
        self.run(index, is_skipped)
    }

    /// The end of white space as pyparsing's `White()` has it at `index`: a form feed, perhaps with wide spaces
    /// behind it, is skipped in front of the white space proper that must follow.
    pub(super) fn form_feed(self, index: usize) -> Option<usize> {
        self.get(index).filter(|first| *first == '\u{c}')?;
        let proper = self.run(index, is_skipped_by_white);
        let end = self.skip_space(proper);
        (end > proper).then_some(end)
    }

    /// The end of the run of characters that `fits`.
    pub(super) fn run(self, index: usize, fits: impl Fn(char) -> bool) -> usize {
        let rest = self.characters.get(index..).unwrap_or_default();
        index
            + rest
                .iter()
                .take_while(|character| fits(**character))
                .count()
    }

    /// The index behind `literal`, which may have white space before it.
    pub(super) fn literal(self, index: usize, literal: &str) -> Option<usize> {
        let start = self.skip_space(index);
        let end = start + literal.len();
        let found = self.characters.get(start..end)?.iter().copied();
        found.eq(literal.chars()).then_some(end)
    }
}

/// pyparsing's own white space.
pub(super) fn is_skipped(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// What `White()` skips: all that pyparsing knows of as white, but for what it is to match.
fn is_skipped_by_white(character: char) -> bool {
    let is_wide = matches!(
        character,
        '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    );
    is_wide || matches!(character, '\u{c}' | '\u{a0}' | '\u{1680}' | '\u{180e}')
}

/// Python's `string.whitespace`, at which words end.
pub(super) fn ends_word(character: char) -> bool {
    is_skipped(character) || matches!(character, '\u{b}' | '\u{c}')
}
