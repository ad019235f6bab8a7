//! What tokenizing must know of textual-inversion embeddings: their names and sizes, not their
//! numbers.

use super::{END_OF_TEXT, TokenId};

/// The embeddings at hand for one encoder.
pub trait Lexicon {
    /// All names, in the order in which they were given; for tools that look for names in the text.
    fn names(&self) -> Vec<String>;

    /// Each name as it is called by tools that know a file by its own name, whatever folder it lies in (A1111 and
    /// Forge), with the name. The first that fits of those that are called the same is meant.
    fn called(&self) -> Vec<(String, String)> {
        let names = self.names().into_iter();
        names.map(|name| (name.clone(), name)).collect()
    }

    /// The files that a name as written means, the one that is taken first; none where nothing is to be chosen.
    fn meant(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    /// What is known of one name, as written in a prompt.
    fn find(&self, name: &str) -> Known;
}

/// What a [`Lexicon`] knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// No embedding of that name.
    No,
    /// It exists, and has nothing for this encoder.
    Unfit {
        /// How many positions its vectors would take.
        vectors: usize,
        /// What is wrong, for people.
        why: String,
    },
    /// It exists and fits.
    Fit {
        /// How many positions its vectors take.
        vectors: usize,
        /// The id of its first vector in a tokenizer that adds them behind the vocabulary, in the
        /// order of the names (transformers).
        first_id: TokenId,
    },
}

/// No embeddings at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEmbeddings;

impl Lexicon for NoEmbeddings {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn find(&self, _: &str) -> Known {
        Known::No
    }
}

/// The id that transformers gives to the first token it adds.
pub const FIRST_ADDED_ID: TokenId = END_OF_TEXT + 1;
