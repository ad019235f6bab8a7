//! The textual-inversion embeddings of a request: a folder, and files given with a token.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, ErrorKind, Result};
use crate::profile::EmbeddingFiles;
use crate::tokens::{FIRST_ADDED_ID, Known, Lexicon, TokenId};
use crate::weights::{Embedding, EmbeddingFolder, EncoderId, Lora};

use super::plan::Tower;

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
    /// that is taken already, by a file of the folder or one given, keeps its embedding, as in A1111.
    pub fn with_lora(mut self, lora: &Lora) -> Result<Embeddings> {
        for embedding in lora.embeddings()? {
            if self.listed_as(embedding.name()).next().is_none() {
                self.add(embedding.name().to_owned(), Arc::new(embedding));
            }
        }
        Ok(self)
    }

    /// The same with those of another set that were given by name. A file of the folder keeps its name if it is for
    /// these encoders: A1111 registers no other one.
    pub(super) fn and(
        mut self,
        others: &Embeddings,
        towers: &[Tower],
        files: EmbeddingFiles,
    ) -> Embeddings {
        if matches!(files, EmbeddingFiles::Base | EmbeddingFiles::First) {
            return self;
        }
        for (name, embedding) in &others.given {
            let is_meant = |path: &str| {
                let found = self.find(path).ok().flatten();
                found.is_some_and(|found| expect_known(&found, towers, files).is_ok())
            };
            let is_taken = self.listed_as(name).any(is_meant);
            if !is_taken {
                self.add(name.clone(), Arc::clone(embedding));
            }
        }
        self
    }

    /// The names of the folder's files that are called so, whatever folder below it they lie in.
    fn listed_as(&self, called: &str) -> impl Iterator<Item = &str> {
        let listed = self.folder.iter().flat_map(|folder| folder.called());
        listed.filter_map(move |(other, name)| (other == called).then_some(name))
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

    /// Each name as tools call it that know a file by its own name, whatever folder it lies in, and the name. Of
    /// files that are called the same the one comes first that A1111 keeps.
    fn called(&self) -> Vec<(String, String)> {
        let given = self.given.iter().map(|(token, _)| (&**token, &**token));
        let listed = self.folder.iter().flat_map(|folder| folder.called());
        let owned = |(called, name): (&str, &str)| (called.to_owned(), name.to_owned());
        given.chain(listed).map(owned).collect()
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

    /// The embedding of a name; `None` if there is none. A file that cannot be used gives its error. A folder's file
    /// may be named without the folders that it lies in, as in `ComfyUI`.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        if let Some((_, embedding)) = self.given.iter().find(|(token, _)| token == name) {
            return Ok(Some(embedding.clone()));
        }
        match &self.folder {
            Some(folder) => folder.get_anywhere(name),
            None => Ok(None),
        }
    }

    /// The files of the folder that a name means, the one that [`find`](Self::find) takes first; none for one that was
    /// given with a token.
    fn meant(&self, name: &str) -> Vec<String> {
        let folder = self.folder.as_ref();
        let folder = folder.filter(|_| self.given.iter().all(|(token, _)| token != name));
        let meant = folder.into_iter().flat_map(|folder| folder.meant(name));
        meant.map(str::to_owned).collect()
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

/// Refuses a file that a tool leaves out for what it holds beside what an encoder needs, or lacks for another one.
fn expect_known(embedding: &Embedding, towers: &[Tower], files: EmbeddingFiles) -> Result<()> {
    let needed = match files {
        EmbeddingFiles::First => &towers[..towers.len().min(1)],
        _ => towers,
    };
    for tower in needed {
        embedding.expect_vectors(tower.id, tower.width)?;
    }
    let is_refiner = matches!(towers, [only] if only.id == EncoderId::OpenClipG);
    let wanted = match files {
        EmbeddingFiles::First => return Ok(()),
        EmbeddingFiles::Base if is_refiner => 2,
        _ => towers.len(),
    };
    let found = embedding.widths().len();
    if found == wanted {
        return Ok(());
    }
    let name = embedding.name();
    let message = format!(
        "the embedding `{name}` has vectors of {found} widths; the tool wants {wanted} for this model"
    );
    let hint = "it was trained for another family of models";
    Err(Error::new(ErrorKind::Embedding, message).hint(hint))
}

/// The embeddings as one encoder sees them.
pub(super) struct EncoderLexicon<'a> {
    pub(super) embeddings: Option<&'a Embeddings>,
    pub(super) tower: Tower,
    /// All encoders of the model.
    pub(super) towers: &'a [Tower],
    pub(super) files: EmbeddingFiles,
}

impl Lexicon for EncoderLexicon<'_> {
    fn names(&self) -> Vec<String> {
        self.embeddings.map(Embeddings::names).unwrap_or_default()
    }

    fn called(&self) -> Vec<(String, String)> {
        self.embeddings.map(Embeddings::called).unwrap_or_default()
    }

    fn meant(&self, name: &str) -> Vec<String> {
        let meant = self.embeddings.map(|embeddings| embeddings.meant(name));
        meant.unwrap_or_default()
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
        let Tower { id, width } = self.tower;
        let known = match self.files {
            EmbeddingFiles::Each => Ok(()),
            files => expect_known(&embedding, self.towers, files),
        };
        let fits = known.and_then(|()| embedding.expect_vectors(id, width).map(drop));
        match fits {
            Ok(()) => Known::Fit {
                vectors: embedding.n_vectors(),
                first_id: embeddings.first_id(name, id, width),
            },
            Err(error) => Known::Unfit {
                vectors: embedding.n_vectors(),
                why: error.to_string(),
            },
        }
    }
}
