//! MERGES FILE → VOCABULARY. Every id has one spelling, every word its ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::LazyLock;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{END_OF_TEXT, START_OF_TEXT, TokenId, VOCABULARY};
use crate::error::{Error, ErrorKind, Result};

/// Lines of `merges.txt` after its header (`vocab[1:49152-256-2+1]`, `clip/simple_tokenizer.py`).
const MERGES: usize = 49152 - 256 - 2;

/// Ids of the bytes: 256 inside a word, 256 at its end.
const FIRST_MERGE: usize = 512;

/// What the vocabulary writes at the end of a word.
const WORD_END: &str = "</w>";

/// The byte alphabet in the order of its ids, as (byte, character): printable Latin-1 stands for
/// itself, the rest takes U+0100 and up (`bytes_to_unicode`, `clip/simple_tokenizer.py`).
static ALPHABET: LazyLock<Vec<(u8, char)>> = LazyLock::new(|| {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let themselves = (0..=255)
        .filter(printable)
        .map(|byte| (byte, char::from(byte)));
    let others = (0..=255).filter(|byte| !printable(byte)).zip('\u{100}'..);
    themselves.chain(others).collect()
});

/// The id of each byte inside a word.
static BYTE_IDS: LazyLock<[TokenId; 256]> = LazyLock::new(|| {
    let mut ids = [0; 256];
    for (id, (byte, _)) in (0..).zip(ALPHABET.iter()) {
        ids[usize::from(*byte)] = id;
    }
    ids
});

/// The pieces, their merges, and the words that are one piece.
pub(super) struct Vocabulary {
    spellings: String,
    ends: Vec<usize>,
    merges: Vec<(TokenId, TokenId)>,
    ranks: FxHashMap<(TokenId, TokenId), usize>,
    words: FxHashMap<Box<[u8]>, TokenId>,
}

impl Vocabulary {
    /// Reads the text of a `merges.txt`: strict, except that the header may be odd or missing and
    /// lines may end in CR LF.
    pub(super) fn from_merges(text: &str) -> Result<Vocabulary> {
        let mut reader = Reader::new();
        let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
        let filled = lines
            .iter()
            .rposition(|line| !line.is_empty())
            .map_or(0, |last| last + 1);
        let header = usize::from(lines.first().is_some_and(|line| reader.is_header(line)));
        let merges = lines.get(header..filled).unwrap_or_default();
        if merges.len() != MERGES {
            return Err(wrong_count(merges.len()));
        }
        for (number, line) in (header + 1..).zip(merges) {
            reader.take(line).map_err(|what| {
                Error::new(
                    ErrorKind::Vocabulary,
                    format!("merges line {number}: {what}"),
                )
            })?;
        }
        Ok(reader.finish())
    }

    /// The spelling of `id`.
    pub(super) fn piece(&self, id: TokenId) -> Option<&str> {
        let id = usize::try_from(id).ok()?;
        let end = *self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.spellings[start..end])
    }

    /// The id that is spelt so.
    pub(super) fn id_of(&self, spelling: &str) -> Option<TokenId> {
        (0..)
            .map_while(|id| Some((id, self.piece(id)?)))
            .find_map(|(id, piece)| (piece == spelling).then_some(id))
    }

    /// Appends the ids of one word (`bpe`, `clip/simple_tokenizer.py`).
    pub(super) fn append(&self, word: &[u8], ids: &mut Vec<TokenId>) {
        match self.words.get(word) {
            Some(id) => ids.push(*id),
            None => Merging::of(word, self).append(ids),
        }
    }

    fn rank(&self, left: TokenId, right: TokenId) -> Option<usize> {
        self.ranks.get(&(left, right)).copied()
    }
}

/// The bytes that the spelling of a piece stands for, and whether it ends a word.
pub(super) fn bytes_of(spelling: &str) -> (Vec<u8>, bool) {
    static BYTES: LazyLock<FxHashMap<char, u8>> = LazyLock::new(|| {
        ALPHABET
            .iter()
            .map(|(byte, letter)| (*letter, *byte))
            .collect()
    });
    let (letters, ends) = spelling
        .strip_suffix(WORD_END)
        .map_or((spelling, false), |letters| (letters, true));
    (
        letters
            .chars()
            .filter_map(|letter| BYTES.get(&letter).copied())
            .collect(),
        ends,
    )
}

/// A vocabulary while its merges are read.
struct Reader {
    ids: FxHashMap<String, TokenId>,
    vocabulary: Vocabulary,
}

impl Reader {
    fn new() -> Reader {
        let vocabulary = Vocabulary {
            spellings: String::new(),
            ends: Vec::with_capacity(VOCABULARY),
            merges: Vec::with_capacity(MERGES),
            ranks: FxHashMap::with_capacity_and_hasher(MERGES, FxBuildHasher),
            words: FxHashMap::default(),
        };
        let mut reader = Reader {
            ids: FxHashMap::with_capacity_and_hasher(VOCABULARY, FxBuildHasher),
            vocabulary,
        };
        for end in ["", WORD_END] {
            for (_, letter) in ALPHABET.iter() {
                reader.name(format!("{letter}{end}"));
            }
        }
        reader
    }

    /// Gives the next id to `spelling`; false where the spelling already has one.
    fn name(&mut self, spelling: String) -> bool {
        let vocabulary = &mut self.vocabulary;
        let id = id_of(vocabulary.ends.len());
        vocabulary.spellings.push_str(&spelling);
        vocabulary.ends.push(vocabulary.spellings.len());
        self.ids.insert(spelling, id).is_none()
    }

    /// True for `#version: 0.2`, for the header of OpenAI's own file, and for any other comment
    /// that cannot be a merge (some merges do begin with `#`).
    fn is_header(&self, line: &str) -> bool {
        line.contains("#version") || (line.starts_with('#') && self.pair(line).is_err())
    }

    fn pair<'a>(&self, line: &'a str) -> Result<(&'a str, &'a str), String> {
        let (left, right) = line
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
            .ok_or_else(|| format!("expected two pieces with one space between, found `{line}`"))?;
        match [left, right]
            .into_iter()
            .find(|piece| !self.ids.contains_key(*piece))
        {
            Some(piece) => Err(format!("`{piece}` is neither a byte nor an earlier merge")),
            None if left.ends_with(WORD_END) => Err(format!("`{left}` ends a word already")),
            None => Ok((left, right)),
        }
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let (left, right) = self.pair(line)?;
        let pair = (self.ids[left], self.ids[right]);
        let rank = self.vocabulary.merges.len();
        let repeated = self.vocabulary.ranks.insert(pair, rank).is_some();
        self.vocabulary.merges.push(pair);
        if repeated || !self.name(format!("{left}{right}")) {
            return Err(format!("`{left}{right}` is a duplicate"));
        }
        Ok(())
    }

    fn finish(mut self) -> Vocabulary {
        self.name("<|startoftext|>".to_owned());
        self.name("<|endoftext|>".to_owned());
        let mut vocabulary = self.vocabulary;
        vocabulary.words = single_pieces(&vocabulary);
        vocabulary
    }
}

/// The words whose merging ends in one piece, so that most words cost one look-up.
fn single_pieces(vocabulary: &Vocabulary) -> FxHashMap<Box<[u8]>, TokenId> {
    let mut ids = Vec::new();
    let mut words = FxHashMap::with_capacity_and_hasher(VOCABULARY, FxBuildHasher);
    for id in (0..START_OF_TEXT).chain(END_OF_TEXT + 1..id_of(vocabulary.ends.len())) {
        let (bytes, ends) = bytes_of(vocabulary.piece(id).unwrap_or_default());
        ids.clear();
        if ends {
            Merging::of(&bytes, vocabulary).append(&mut ids);
        }
        if ids == [id] {
            words.insert(bytes.into(), id);
        }
    }
    words
}

fn id_of(index: usize) -> TokenId {
    TokenId::try_from(index).expect("a vocabulary has 49408 pieces")
}

fn wrong_count(found: usize) -> Error {
    let message = format!("a CLIP vocabulary has {MERGES} merges, this text has {found}");
    Error::new(ErrorKind::Vocabulary, message)
        .hint("give the merges.txt of a Stable Diffusion tokenizer folder")
}

/// One word while its pairs merge, lowest rank first, then leftmost: a list of pieces linked by
/// position, and a heap of the pairs seen so far. `n log n` for any word.
struct Merging<'a> {
    vocabulary: &'a Vocabulary,
    pieces: Vec<Option<TokenId>>,
    next: Vec<usize>,
    previous: Vec<Option<usize>>,
    pairs: BinaryHeap<Reverse<(usize, usize)>>,
}

impl<'a> Merging<'a> {
    fn of(word: &[u8], vocabulary: &'a Vocabulary) -> Merging<'a> {
        let mut pieces: Vec<_> = word
            .iter()
            .map(|b| Some(BYTE_IDS[usize::from(*b)]))
            .collect();
        if let Some(Some(last)) = pieces.last_mut() {
            *last += 256;
        }
        let next = (1..=word.len()).collect();
        let previous = (0..word.len()).map(|at| at.checked_sub(1)).collect();
        let mut merging = Merging {
            vocabulary,
            pieces,
            next,
            previous,
            pairs: BinaryHeap::with_capacity(16),
        };
        for at in 0..word.len() {
            merging.see(at);
        }
        merging
    }

    fn append(mut self, ids: &mut Vec<TokenId>) {
        while let Some(Reverse((rank, at))) = self.pairs.pop() {
            if self.pair(at) == Some(self.vocabulary.merges[rank]) {
                self.merge(rank, at);
            }
        }
        ids.extend(self.pieces.into_iter().flatten());
    }

    /// The piece at `at` with the one after it.
    fn pair(&self, at: usize) -> Option<(TokenId, TokenId)> {
        let left = self.pieces[at]?;
        let right = self.pieces.get(self.next[at]).copied().flatten()?;
        Some((left, right))
    }

    fn see(&mut self, at: usize) {
        let rank = self
            .pair(at)
            .and_then(|(left, right)| self.vocabulary.rank(left, right));
        self.pairs.extend(rank.map(|rank| Reverse((rank, at))));
    }

    fn merge(&mut self, rank: usize, at: usize) {
        let gone = self.next[at];
        let after = self.next[gone];
        self.pieces[at] = Some(id_of(FIRST_MERGE + rank));
        self.pieces[gone] = None;
        self.next[at] = after;
        if let Some(previous) = self.previous.get_mut(after) {
            *previous = Some(at);
        }
        self.see(at);
        if let Some(before) = self.previous[at] {
            self.see(before);
        }
    }
}
