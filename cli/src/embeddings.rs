//! The embeddings that prompts may name: a folder's, and files that a request line gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_conditioner::{Embeddings, Result};
use serde::Deserialize;

use crate::job::Job;
use crate::loras::LoraFile;

/// A file and the token that stands for it; without one its own placeholder does, else its name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingFile {
    file: PathBuf,
    token: Option<String>,
}

/// The files that bring embeddings: their own, and `LoRAs`.
type Given = (Vec<EmbeddingFile>, Vec<LoraFile>);

/// Where embeddings come from. Remembers the last set, since the lines of a file are often alike.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: Option<Arc<Embeddings>>,
    /// What relative paths start from.
    base: PathBuf,
    last: Option<(Given, Arc<Embeddings>)>,
}

impl Shelf {
    /// The folder, if there is one, and where the paths of request lines start.
    pub(crate) fn open(folder: Option<&Path>, requests: Option<&Path>) -> Result<Shelf> {
        let folder = folder.map(Embeddings::folder).transpose()?;
        let base = requests.and_then(Path::parent).unwrap_or(Path::new(""));
        Ok(Shelf {
            folder: folder.map(Arc::new),
            base: base.to_owned(),
            last: None,
        })
    }

    /// The job with what it may name.
    pub(crate) fn supply(&mut self, job: Job) -> Result<Job> {
        let embeddings = match job.embedding_files() {
            None => None,
            Some([]) if job.loras().is_empty() => self.folder.clone(),
            Some(files) => Some(self.with_files(files, &job)?),
        };
        Ok(job.with_embeddings(embeddings))
    }

    fn with_files(&mut self, files: &[EmbeddingFile], job: &Job) -> Result<Arc<Embeddings>> {
        let given = (
            files.to_vec(),
            job.lora_files().unwrap_or_default().to_vec(),
        );
        if let Some((known, embeddings)) = &self.last
            && *known == given
        {
            return Ok(embeddings.clone());
        }
        let mut embeddings = self.folder.as_deref().cloned().unwrap_or_default();
        for file in files {
            let path = self.base.join(&file.file);
            embeddings = embeddings.with_file(path, file.token.as_deref())?;
        }
        for lora in job.loras() {
            embeddings = embeddings.with_lora(lora.lora())?;
        }
        let embeddings = Arc::new(embeddings);
        self.last = Some((given, embeddings.clone()));
        Ok(embeddings)
    }
}
