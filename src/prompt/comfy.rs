//! ComfyUI's emphasis grammar.
//!
//! Rules: `token_weights`, `parse_parentheses`, `escape_important` and `unescape_important` in
//! `comfy/sd1_clip.py`. Only `( )`, `\(`, `\)` and `:` mean anything. A number after the last `:`
//! of a group *replaces* the strength; without one a group is 1.1 times its surroundings. A group
//! that is never closed is text, yet loses its own bracket when the text happens to end in `)`.

use std::ops::Range;

use super::{Note, Piece, Strength, python};

mod embedding;

pub use embedding::{EmbeddingPiece, embedding_pieces, retry_name};

/// What a `(` multiplies with.
const STEP: f64 = 1.1;

/// Reads `text`.
pub(super) fn parse(text: &str) -> (Vec<Piece>, Vec<Note>) {
    let mut reader = Reader::new(text);
    reader.top_level();
    while let Some(Work {
        span,
        strength,
        todo,
    }) = reader.pending.pop()
    {
        match todo {
            Todo::Text => reader.emit(span, strength),
            Todo::Scan => reader.scan(span, strength),
        }
    }
    (reader.pieces, reader.notes)
}

/// A part of the text that waits for its turn.
struct Work {
    span: Range<usize>,
    strength: f64,
    todo: Todo,
}

impl Work {
    fn text(span: Range<usize>, strength: f64) -> Work {
        Work {
            span,
            strength,
            todo: Todo::Text,
        }
    }
}

enum Todo {
    /// It is one piece.
    Text,
    /// It is to be cut into groups and what is between them.
    Scan,
}

/// A parenthesis that is not escaped.
struct Paren {
    at: usize,
    opens: bool,
    /// Where its partner stands in the whole text.
    partner: Option<usize>,
}

/// Reads with a list of pending work, not by recursion: prompts may nest as deep as they like.
struct Reader<'a> {
    text: &'a str,
    parens: Vec<Paren>,
    colons: Vec<usize>,
    /// The last one is next.
    pending: Vec<Work>,
    pieces: Vec<Piece>,
    notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        let colons = text.match_indices(':').map(|(at, _)| at).collect();
        let (pieces, notes, pending) = (Vec::new(), Vec::new(), Vec::new());
        Reader {
            text,
            parens: parens(text),
            colons,
            pending,
            pieces,
            notes,
        }
    }

    /// Cuts the whole text into groups and what is between them.
    ///
    /// Here alone the reference's depth counter can fall below 0; then parentheses are text until
    /// as many `(` have come as there were `)` too many.
    fn top_level(&mut self) {
        let mut works = Vec::new();
        let (mut from, mut missing, mut index) = (0, 0_usize, 0);
        while let Some(paren) = self.parens.get(index) {
            let at = paren.at;
            index += 1;
            if !paren.opens {
                missing += 1;
                let message = "closes nothing; parentheses are text until a `(` makes up for it";
                self.notes.push(Note::unbalanced(at..at + 1, message));
            } else if missing > 0 {
                missing -= 1;
            } else {
                works.push(Work::text(from..at, 1.0));
                let item = self.item(index - 1, self.text.len());
                from = item.end;
                index = self.first_paren_from(from);
                works.push(self.open(item, 1.0));
            }
        }
        works.push(Work::text(from..self.text.len(), 1.0));
        self.pending.extend(works.into_iter().rev());
    }

    /// Cuts the inside of a group at its first parenthesis, which always opens.
    fn scan(&mut self, span: Range<usize>, strength: f64) {
        let index = self.first_paren_from(span.start);
        let first = self
            .parens
            .get(index)
            .map(|paren| paren.at)
            .filter(|at| *at < span.end);
        let Some(at) = first else {
            return self.emit(span, strength);
        };
        let item = self.item(index, span.end);
        self.emit(span.start..at, strength);
        self.pending.push(Work {
            span: item.end..span.end,
            strength,
            todo: Todo::Scan,
        });
        let work = self.open(item, strength);
        self.pending.push(work);
    }

    fn first_paren_from(&self, start: usize) -> usize {
        self.parens.partition_point(|paren| paren.at < start)
    }

    /// From an opener to its partner, or to `end` if that is nearer.
    fn item(&mut self, index: usize, end: usize) -> Range<usize> {
        let paren = &self.parens[index];
        match paren.partner {
            Some(partner) if partner < end => paren.at..partner + 1,
            Some(_) | None => {
                let message = "never closed; from here on it is text";
                self.notes
                    .push(Note::unbalanced(paren.at..paren.at + 1, message));
                paren.at..end
            }
        }
    }

    /// What to do with an item that begins with `(`: it is a group if it ends in `)`.
    fn open(&mut self, item: Range<usize>, strength: f64) -> Work {
        let last = item.end - 1;
        let index = self.first_paren_from(last);
        let is_group = last > item.start
            && self
                .parens
                .get(index)
                .is_some_and(|paren| paren.at == last && !paren.opens);
        if !is_group {
            return Work::text(item, strength);
        }
        let inside = item.start + 1..last;
        let (span, strength) = match self.explicit(&inside) {
            Some((colon, value)) => (inside.start..colon, value),
            None => (inside, strength * STEP),
        };
        Work {
            span,
            strength,
            todo: Todo::Scan,
        }
    }

    /// The last colon inside a group and the number behind it. A colon that comes first is text.
    fn explicit(&self, inside: &Range<usize>) -> Option<(usize, f64)> {
        let colon = self
            .colons
            .partition_point(|colon| *colon < inside.end)
            .checked_sub(1)?;
        let colon = self.colons[colon];
        let paren = self.first_paren_from(inside.end).checked_sub(1)?;
        // A parenthesis behind the colon is no part of a number: do not even look.
        if colon <= inside.start || self.parens[paren].at > colon {
            return None;
        }
        Some((colon, python::float(&self.text[colon + 1..inside.end])?))
    }

    fn emit(&mut self, span: Range<usize>, strength: f64) {
        if span.is_empty() {
            return;
        }
        let strength = Strength::new(strength);
        self.notes.extend(Note::about_strength(strength, &span));
        self.pieces.push(Piece::Text {
            text: unescape(&self.text[span.clone()]),
            strength,
            span,
        });
    }
}

/// All parentheses without a backslash before them, paired.
fn parens(text: &str) -> Vec<Paren> {
    let mut parens: Vec<Paren> = Vec::new();
    let mut open = Vec::new();
    let mut previous = 0;
    for (at, byte) in text.bytes().enumerate() {
        if matches!(byte, b'(' | b')') && previous != b'\\' {
            let opens = byte == b'(';
            let partner: Option<usize> = if opens { None } else { open.pop() };
            if let Some(partner) = partner {
                parens[partner].partner = Some(at);
            }
            if opens {
                open.push(parens.len());
            }
            let partner = partner.map(|index| parens[index].at);
            parens.push(Paren { at, opens, partner });
        }
        previous = byte;
    }
    parens
}

/// Undoes `\(` and `\)`, and the bytes 0 1 and 0 2 which the reference uses as marks for them.
fn unescape(text: &str) -> String {
    let marked = text.replace("\\)", "\0\u{1}").replace("\\(", "\0\u{2}");
    marked.replace("\0\u{1}", ")").replace("\0\u{2}", "(")
}
