//! One window: start, content, end, padding.

use std::sync::Arc;

use super::{CONTENT, CONTEXT, ChunkRule, END_OF_TEXT, START_OF_TEXT, TokenId};

/// Which row of a window the pooled vector is read from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolAt {
    /// The first end token: right whatever else the window holds.
    #[default]
    FirstEnd,
    /// The first of the highest ids, embeddings counted as ids behind the vocabulary: what
    /// transformers does where a config says `eos_token_id: 2`, as all of Stable Diffusion's do.
    /// With a textual inversion it is not the end token.
    HighestId,
    /// The first end token, and as many rows further as vectors of embeddings stand behind it:
    /// `ComfyUI` counts tokens up to the end, and all vectors.
    Counted,
}

/// A vector of a textual-inversion embedding that stands in for a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Splice {
    /// The row of the window.
    pub row: usize,
    /// The embedding, as its [`Lexicon`](crate::tokens::Lexicon) knows it.
    pub name: Arc<str>,
    /// Which of its vectors.
    pub vector: usize,
    /// The id that transformers would have added for it.
    pub id: TokenId,
}

/// One window: start, content, end, padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub(super) ids: [TokenId; CONTEXT],
    pub(super) strengths: [f64; CONTEXT],
    pieces: [u32; CONTEXT],
    segments: [u32; CONTEXT],
    pub(super) splices: Vec<Splice>,
    pub(super) end: usize,
    /// Where vectors of the wrong width would stand, in the rows of the strengths; ascending.
    left_out: Vec<usize>,
}

impl Chunk {
    /// The ids; 0 where an embedding's vector stands.
    pub fn ids(&self) -> &[TokenId; CONTEXT] {
        &self.ids
    }

    /// The strength of each row; 1 for start, end and padding. Behind a vector that was left out
    /// for its width they are not those of the ids in these rows: `ComfyUI` moves the ids up and
    /// leaves the strengths where they were.
    pub fn strengths(&self) -> &[f64; CONTEXT] {
        &self.strengths
    }

    /// For each row, 1 + the index of the prompt's piece it came from; 0 for start, end, padding.
    pub fn pieces(&self) -> &[u32; CONTEXT] {
        &self.pieces
    }

    /// For each row, 1 + the index of the stretch that was tokenized as one: a piece, or a part of
    /// one beside an embedding. `ComfyUI` calls it the word id. 0 for start, end, padding. They stand
    /// beside the strengths.
    pub fn segments(&self) -> &[u32; CONTEXT] {
        &self.segments
    }

    /// The vectors of embeddings that take the place of ids.
    pub fn splices(&self) -> &[Splice] {
        &self.splices
    }

    /// The row where the pooled vector is read.
    pub fn end(&self) -> usize {
        self.end
    }

    /// How many content rows it holds.
    pub fn content(&self) -> usize {
        self.pieces.iter().filter(|piece| **piece != 0).count()
    }

    /// The same window with other ids in some rows and no vectors there; the end stays. The rows
    /// are those of the strengths: a vector that was left out is there again as an id.
    #[must_use]
    pub fn with_ids(mut self, rows: &[usize], id: TokenId) -> Chunk {
        let padding = self.ids[CONTEXT - 1];
        let mut splices = self.splices.drain(..).peekable();
        let mut all: Vec<Option<(TokenId, Option<Splice>)>> = Vec::with_capacity(CONTEXT);
        for (row, id) in self.ids.into_iter().enumerate() {
            all.push(Some((id, splices.next_if(|splice| splice.row == row))));
        }
        drop(splices);
        for row in &self.left_out {
            all.insert(*row, None);
        }
        all.truncate(CONTEXT);
        for row in rows {
            all[*row] = Some((id, None));
        }
        self.left_out.retain(|row| !rows.contains(row));
        self.ids = [padding; CONTEXT];
        for (row, (id, splice)) in all.into_iter().flatten().enumerate() {
            self.ids[row] = id;
            self.splices
                .extend(splice.map(|splice| Splice { row, ..splice }));
        }
        self
    }

    /// The window of the empty prompt.
    pub fn empty(padding: TokenId) -> Chunk {
        Chunk::around(&[], &[], padding, PoolAt::FirstEnd)
    }

    /// A window around up to 75 content tokens.
    pub(super) fn around(
        content: &[Token],
        names: &[Arc<str>],
        padding: TokenId,
        pool_at: PoolAt,
    ) -> Chunk {
        debug_assert!(content.len() <= CONTENT, "a window holds 75 ids");
        let mut chunk = Chunk {
            ids: [padding; CONTEXT],
            strengths: [1.0; CONTEXT],
            pieces: [0; CONTEXT],
            segments: [0; CONTEXT],
            splices: Vec::new(),
            end: 0,
            left_out: Vec::new(),
        };
        chunk.ids[0] = START_OF_TEXT;
        let mut row = 1;
        for (place, token) in (1..).zip(content) {
            chunk.strengths[place] = token.strength;
            chunk.segments[place] = token.segment.wrapping_add(1);
            if token.fits() {
                chunk.place(row, token, names);
                row += 1;
            } else {
                chunk.left_out.push(place);
            }
        }
        chunk.ids[row] = END_OF_TEXT;
        chunk.end = chunk.pool_row(pool_at);
        chunk
    }

    fn place(&mut self, row: usize, token: &Token, names: &[Arc<str>]) {
        self.ids[row] = token.id;
        self.pieces[row] = token.piece.wrapping_add(1);
        if let Some(vector) = &token.vector {
            self.splices.push(vector.at(row, names));
        }
    }

    /// Turns everything after the first end token into padding, a typed end token included.
    pub(super) fn refill(&mut self, rule: ChunkRule) {
        if rule.refill {
            let end = self.pool_row(PoolAt::FirstEnd);
            self.ids[end + 1..].fill(rule.padding);
        }
    }

    /// The row that is pooled. A literal end token in the text counts as an end.
    pub(super) fn pool_row(&self, pool_at: PoolAt) -> usize {
        let first_end = self.ids.iter().position(|id| *id == END_OF_TEXT);
        let first_end = first_end.unwrap_or(CONTEXT - 1);
        let highest = self.splices.iter().map(|splice| splice.id).max();
        match (pool_at, highest) {
            (PoolAt::FirstEnd, _) | (PoolAt::HighestId, None) => first_end,
            (PoolAt::Counted, _) => {
                let behind = |splice: &&Splice| splice.row > first_end;
                first_end + self.splices.iter().filter(behind).count()
            }
            (PoolAt::HighestId, Some(id)) => {
                let mut rows = self.splices.iter().filter(|splice| splice.id == id);
                rows.next().map_or(first_end, |splice| splice.row)
            }
        }
    }
}

/// One content token on its way into a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) id: TokenId,
    pub(super) strength: f64,
    pub(super) piece: u32,
    pub(super) segment: u32,
    pub(super) vector: Option<Vector>,
}

impl Token {
    /// An end token that fills a place: of no piece.
    pub(super) const END: Token = Token {
        id: END_OF_TEXT,
        strength: 1.0,
        piece: u32::MAX,
        segment: u32::MAX,
        vector: None,
    };

    /// False for a vector that has the wrong width: it takes part in the cutting, but is not placed.
    fn fits(&self) -> bool {
        self.vector.as_ref().is_none_or(|vector| vector.fits)
    }
}

/// A vector in place of an id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Vector {
    /// Index into the list of names.
    pub(super) name: usize,
    pub(super) index: usize,
    /// How many the embedding has.
    pub(super) of: usize,
    pub(super) id: TokenId,
    pub(super) fits: bool,
}

impl Vector {
    pub(super) fn at(&self, row: usize, names: &[Arc<str>]) -> Splice {
        Splice {
            row,
            name: names[self.name].clone(),
            vector: self.index,
            id: self.id,
        }
    }
}
