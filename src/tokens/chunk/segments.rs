//! Pieces of a prompt as ids, each stretch tokenized on its own, embeddings in their places.

use std::ops::Range;
use std::sync::Arc;

use super::window::{Token, Vector};
use super::{ChunkRule, Lexicon, Tokenizer, triggers};
use crate::prompt::{Note, NoteKind, Piece};
use crate::tokens::{Known, TokenId};

/// The stretches of one prompt.
pub(super) struct Segments {
    pub(super) list: Vec<Segment>,
    /// The embeddings that occur.
    pub(super) names: Vec<Arc<str>>,
    pub(super) notes: Vec<Note>,
}

/// What was tokenized as one.
pub(super) struct Segment {
    /// Empty for a forced break.
    pub(super) tokens: Vec<Token>,
    pub(super) span: Range<usize>,
    pub(super) forced_break: bool,
}

impl Segments {
    pub(super) fn of(
        pieces: &[Piece],
        tokenizer: &Tokenizer,
        rule: ChunkRule,
        lexicon: &dyn Lexicon,
    ) -> Segments {
        let mut build = Build {
            tokenizer,
            rule,
            lexicon,
            piece: 0,
            strength: 1.0,
            done: Segments {
                list: Vec::with_capacity(pieces.len()),
                names: Vec::new(),
                notes: Vec::new(),
            },
        };
        for (piece, index) in pieces.iter().zip(0_u32..) {
            build.piece = index;
            build.add(piece);
        }
        build.done
    }
}

/// Segments under construction; the triggers write into it.
pub(super) struct Build<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) rule: ChunkRule,
    pub(super) lexicon: &'a dyn Lexicon,
    piece: u32,
    strength: f64,
    pub(super) done: Segments,
}

impl Build<'_> {
    fn add(&mut self, piece: &Piece) {
        match piece {
            Piece::Text {
                text,
                strength,
                span,
            } => {
                self.strength = strength.get();
                triggers::place(self, text, span.clone());
            }
            Piece::Embedding {
                name,
                strength,
                span,
            } => {
                self.strength = strength.get();
                self.begin(span.clone());
                self.embedding(name, span.clone());
            }
            Piece::Break { span } => self.force_break(span.clone()),
        }
    }

    fn force_break(&mut self, span: Range<usize>) {
        self.begin(span);
        if let Some(segment) = self.done.list.last_mut() {
            segment.forced_break = true;
        }
    }

    /// Starts a stretch.
    pub(super) fn begin(&mut self, span: Range<usize>) {
        self.done.list.push(Segment {
            tokens: Vec::new(),
            span,
            forced_break: false,
        });
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<TokenId> {
        self.tokenizer.encode(text, self.rule.tokens)
    }

    /// Adds ids to the current stretch.
    pub(super) fn ids(&mut self, ids: &[TokenId]) {
        for id in ids {
            self.push(*id, None);
        }
    }

    /// Adds the vectors of an embedding to the current stretch, or a note why not. True if there is
    /// such an embedding.
    pub(super) fn embedding(&mut self, name: &str, span: Range<usize>) -> bool {
        self.chosen(name, &self.lexicon.meant(name), &span);
        match self.lexicon.find(name) {
            Known::No => {
                let message = format!("no embedding is called {name:?}; it is left out");
                self.note(NoteKind::UnknownEmbedding, span, message);
                false
            }
            Known::Unfit { vectors, why } => {
                let message = format!("the embedding {name:?} is left out: {why}");
                self.note(NoteKind::UnknownEmbedding, span, message);
                self.vectors(name, 0..vectors, (vectors, 0, false));
                true
            }
            Known::Fit { vectors, first_id } => {
                self.vectors(name, 0..vectors, (vectors, first_id, true));
                true
            }
        }
    }

    /// Says, once, why the name of an embedding stays text.
    pub(super) fn stays_text(&mut self, name: &str, why: &str, span: Range<usize>) {
        let message = format!("the embedding {name:?} is left out, its name stays text: {why}");
        self.note_once(NoteKind::UnknownEmbedding, span, message);
    }

    /// Says, once, which of several files is taken: the first.
    pub(super) fn chosen(&mut self, name: &str, files: &[String], span: &Range<usize>) {
        if let [taken, others @ ..] = files
            && !others.is_empty()
        {
            let others = others.join("`, `");
            let message = format!(
                "of the embeddings that {name:?} may mean, `{taken}` is taken, not `{others}`"
            );
            self.note_once(NoteKind::Quirk, span.clone(), message);
        }
    }

    /// Adds a note whose words are not there yet.
    pub(super) fn note_once(&mut self, kind: NoteKind, span: Range<usize>, message: String) {
        if self.done.notes.iter().all(|note| note.message != message) {
            self.note(kind, span, message);
        }
    }

    /// Adds the id that stands for the name of an embedding, and says, once, why.
    pub(super) fn becomes(&mut self, name: &str, id: TokenId, why: &str, span: Range<usize>) {
        self.ids(&[id]);
        let message =
            format!("the embedding {name:?} is left out, the id {id} stands for its name: {why}");
        self.note_once(NoteKind::UnknownEmbedding, span, message);
    }

    /// Adds some vectors of an embedding.
    pub(super) fn vectors(
        &mut self,
        name: &str,
        which: Range<usize>,
        (of, first_id, fits): (usize, TokenId, bool),
    ) {
        let place = self.name(name);
        for (index, id) in which.clone().zip(first_id..) {
            let vector = Vector {
                name: place,
                index,
                of: which.len().min(of),
                id,
                fits,
            };
            self.push(0, Some(vector));
        }
    }

    pub(super) fn note(&mut self, kind: NoteKind, span: Range<usize>, message: String) {
        self.done.notes.push(Note {
            kind,
            span,
            message,
        });
    }

    fn push(&mut self, id: TokenId, vector: Option<Vector>) {
        let number = self.done.list.len().saturating_sub(1);
        let token = Token {
            id,
            strength: self.strength,
            piece: self.piece,
            segment: u32::try_from(number).unwrap_or(u32::MAX - 1),
            vector,
        };
        if let Some(segment) = self.done.list.last_mut() {
            segment.tokens.push(token);
        }
    }

    fn name(&mut self, name: &str) -> usize {
        let names = &mut self.done.names;
        let found = names.iter().position(|known| **known == *name);
        found.unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        })
    }
}
