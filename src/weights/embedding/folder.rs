//! A folder of embeddings → names, and each file when it is first asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Embedding, refuse};
use crate::error::{Error, Result};
use crate::weights::listing::Listing;

/// The extensions of embeddings, in the order in which `ComfyUI` tries them
/// (`load_embed` in `comfy/sd1_clip.py`), and the one of diffusers' advanced trainer.
const EXTENSIONS: &[&str] = &[".safetensors", ".pt", ".bin", ".pti"];

/// A folder of textual-inversion files, listed once, each file read when it is first asked for.
/// May be shared between threads.
///
/// A name is the path below the folder with `/` between its parts and without the extension:
/// `bad-hands`, `sdxl/style`. A file with the extension `.safetensors` goes before a `.pt`, a
/// `.bin` and a `.pti` of the same name. Files that come later are not seen.
#[derive(Debug)]
pub struct EmbeddingFolder {
    path: PathBuf,
    listing: Listing,
    read: Vec<OnceLock<Arc<Embedding>>>,
}

impl EmbeddingFolder {
    /// Lists a folder and the folders in it; opens no file.
    pub fn open(path: impl AsRef<Path>) -> Result<EmbeddingFolder> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if !metadata.is_dir() {
            let error = refuse("this is not a folder of embeddings").at_path(path);
            return Err(error.hint("give the folder that holds the file"));
        }
        let listing = Listing::open(path, EXTENSIONS)?;
        Ok(EmbeddingFolder {
            path: path.to_owned(),
            read: (0..listing.len()).map(|_| OnceLock::new()).collect(),
            listing,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listing.names().map(|(name, _)| name)
    }

    /// The embedding of this name, with or without the extension, exactly as it is spelt on the
    /// disk. `None` if there is none; a name that reaches out of the folder (`../x`) never has one.
    /// A file that cannot be used gives its error each time.
    pub fn get(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        let Some(place) = self.listing.find(name) else {
            return Ok(None);
        };
        if let Some(read) = self.read[place].get() {
            return Ok(Some(Arc::clone(read)));
        }
        let read = Arc::new(Embedding::open(self.listing.path(place))?);
        Ok(Some(Arc::clone(self.read[place].get_or_init(|| read))))
    }

    /// Folders and files that could not be listed.
    pub fn notes(&self) -> &[String] {
        self.listing.notes()
    }
}
