//! The textual-inversion embeddings of a request: a folder, and files given with a token.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{FIRST_ADDED_ID, Known, Lexicon, TokenId};
use crate::weights::{Embedding, EmbeddingFolder, EncoderId, Lora};

/// Embeddings that prompts may name. Cheap to clone, `Send + Sync`.
///
/// A folder's files are found by name, and opened when a prompt first names one. Files given with a
/// token count as loaded in that order, as in diffusers' `load_textual_inversion`.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    folder: Option<Arc<EmbeddingFolder>>,
    given: Vec<(String, Arc<Embedding>)>,
}

impl Embeddings {
    /// All embedding files below a folder.
    pub fn folder(path: impl AsRef<Path>) -> Result<Embeddings> {
        Ok(Embeddings {
            folder: Some(Arc::new(EmbeddingFolder::open(path.as_ref())?)),
            given: Vec::new(),
        })
    }

    /// The same with one file more. Without a token its own placeholder is used, else its name.
    pub fn with_file(mut self, path: impl AsRef<Path>, token: Option<&str>) -> Result<Embeddings> {
        let embedding = Arc::new(Embedding::open(path.as_ref())?);
        let own = embedding.placeholder().unwrap_or(embedding.name());
        let token = token.unwrap_or(own).to_owned();
        if token.is_empty() || self.given.iter().any(|(other, _)| *other == token) {
            let message = format!("the token {token:?} is empty or already taken");
            return Err(Error::new(ErrorKind::Request, message).at_path(path.as_ref()));
        }
        self.given.push((token, embedding));
        Ok(self)
    }

    /// The same with the embeddings inside a LoRA file, each by the name that it has there. A name
    /// that is taken already keeps its embedding, as in A1111.
    pub fn with_lora(mut self, lora: &Lora) -> Result<Embeddings> {
        for embedding in lora.embeddings()? {
            self.add(embedding.name().to_owned(), Arc::new(embedding));
        }
        Ok(self)
    }

    /// The same with those of another set that were given by name.
    pub(super) fn and(mut self, others: &Embeddings) -> Embeddings {
        for (name, embedding) in &others.given {
            self.add(name.clone(), Arc::clone(embedding));
        }
        self
    }

    /// If the name is free.
    fn add(&mut self, name: String, embedding: Arc<Embedding>) {
        if self.given.iter().all(|(other, _)| *other != name) {
            self.given.push((name, embedding));
        }
    }

    /// Whether there is none that was given by name, and no folder.
    pub(super) fn is_empty(&self) -> bool {
        self.folder.is_none() && self.given.is_empty()
    }

    /// All names, files with a token first.
    pub fn names(&self) -> Vec<String> {
        let given = self.given.iter().map(|(token, _)| token.clone());
        let listed = self.folder.iter().flat_map(|folder| folder.names());
        given.chain(listed.map(str::to_owned)).collect()
    }

    /// Tells sets apart that are in use at the same time. Clones of one set are the same set.
    pub(super) fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let folder = self.folder.as_ref();
        folder
            .map(|folder| Arc::as_ptr(folder).addr())
            .hash(&mut hasher);
        for (token, embedding) in &self.given {
            (token, Arc::as_ptr(embedding).addr()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The embedding of a name; `None` if there is none. A file that cannot be used gives its error.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        if let Some((_, embedding)) = self.given.iter().find(|(token, _)| token == name) {
            return Ok(Some(embedding.clone()));
        }
        match &self.folder {
            Some(folder) => folder.get(name),
            None => Ok(None),
        }
    }

    /// One vector, `[width]`, in f32.
    pub(crate) fn vector(
        &self,
        name: &str,
        vector: usize,
        (encoder, width): (EncoderId, usize),
    ) -> Result<Tensor> {
        let missing = || {
            Error::new(
                ErrorKind::Request,
                format!("the embedding {name:?} is gone"),
            )
        };
        let embedding = self.find(name)?.ok_or_else(missing)?;
        Ok(embedding.expect_vectors(encoder, width)?.get(vector)?)
    }

    /// How many ids the given files before this one take in a tokenizer that adds them.
    fn first_id(&self, name: &str, encoder: EncoderId, width: usize) -> TokenId {
        let before = self.given.iter().take_while(|(token, _)| token != name);
        let taken: usize = before
            .filter_map(|(_, embedding)| embedding.vectors(encoder, width))
            .filter_map(|vectors| vectors.dim(0).ok())
            .sum();
        TokenId::try_from(taken).map_or(TokenId::MAX, |taken| FIRST_ADDED_ID.saturating_add(taken))
    }
}

/// The embeddings as one encoder sees them.
pub(super) struct EncoderLexicon<'a> {
    pub(super) embeddings: Option<&'a Embeddings>,
    pub(super) encoder: EncoderId,
    pub(super) width: usize,
}

impl Lexicon for EncoderLexicon<'_> {
    fn names(&self) -> Vec<String> {
        self.embeddings.map(Embeddings::names).unwrap_or_default()
    }

    fn find(&self, name: &str) -> Known {
        let Some(embeddings) = self.embeddings else {
            return Known::No;
        };
        let embedding = match embeddings.find(name) {
            Ok(Some(embedding)) => embedding,
            Ok(None) => return Known::No,
            Err(error) => {
                return Known::Unfit {
                    vectors: 0,
                    why: error.to_string(),
                };
            }
        };
        match embedding.expect_vectors(self.encoder, self.width) {
            Ok(_) => Known::Fit {
                vectors: embedding.n_vectors(),
                first_id: embeddings.first_id(name, self.encoder, self.width),
            },
            Err(error) => Known::Unfit {
                vectors: embedding.n_vectors(),
                why: error.to_string(),
            },
        }
    }
}
