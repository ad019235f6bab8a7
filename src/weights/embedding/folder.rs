//! A folder of embeddings → names, and each file when it is first asked for.

use std::cmp::Reverse;
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

    /// Each file's own name, and its [name](Self::names). Of files that are called the same the one comes first that
    /// A1111 keeps: the one that `os.walk` comes to last (`load_from_dir` in
    /// `modules/textual_inversion/textual_inversion.py`), with folders in the order of their names.
    pub(crate) fn called(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_by_cached_key(|name| Reverse(walked(name)));
        names.into_iter().map(|name| (own_name(name), name))
    }

    /// The embedding of this name, with or without the extension, exactly as it is spelt on the
    /// disk. `None` if there is none; a name that reaches out of the folder (`../x`) never has one.
    /// A file that cannot be used gives its error each time.
    pub fn get(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        self.read(self.listing.find(name))
    }

    /// The same; where there is none, the name is looked for in each folder below, in the order of their names
    /// (`load_embed` in `comfy/sd1_clip.py`, which takes any of several). There a name may lead out of a folder that
    /// it comes back into (`../embeddings/x`).
    pub(crate) fn get_anywhere(&self, name: &str) -> Result<Option<Arc<Embedding>>> {
        let found = self.listing.find(name);
        self.read(found.or_else(|| self.listing.find_anywhere(name).first().copied()))
    }

    /// The names of all files that a name means in one folder or another; one where the top has it.
    pub(crate) fn meant(&self, name: &str) -> Vec<&str> {
        let found = self.listing.find(name).map(|place| vec![place]);
        let places = found.unwrap_or_else(|| self.listing.find_anywhere(name));
        let names = places.into_iter().map(|place| self.listing.file(place));
        names.collect()
    }

    fn read(&self, place: Option<usize>) -> Result<Option<Arc<Embedding>>> {
        let Some(place) = place else {
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

/// The last part of a name.
fn own_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Sorts names as folders are walked: a folder's files, then the folders in it.
fn walked(name: &str) -> Vec<(bool, &str)> {
    let own = name.len() - own_name(name).len();
    let folders = name[..own].split_terminator('/');
    let folders = folders.map(|folder| (true, folder));
    folders.chain([(false, &name[own..])]).collect()
}
