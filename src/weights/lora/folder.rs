//! A folder of `LoRA`s → names, and each file when it is first asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Lora;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::listing::Listing;

/// The extensions of `LoRA`s, in the order in which they count.
const EXTENSIONS: &[&str] = &[".safetensors", ".pt", ".ckpt"];

/// The name that a trainer gave its result, which A1111 takes for an alias.
const ALIAS: &str = "ss_output_name";

/// A folder of LoRA files, listed once, each opened when it is first asked for. May be shared
/// between threads.
///
/// | a name may be | as in |
/// |---|---|
/// | the path below the folder, with or without extension: `styles/film.safetensors`, `styles/film` | `ComfyUI` |
/// | the file's name alone, in whichever folder: `film` | A1111 |
/// | `ss_output_name` of the file's metadata | A1111's aliases |
///
/// The first row that has the name counts. Names are told apart by case.
#[derive(Debug)]
pub struct LoraFolder {
    path: PathBuf,
    listing: Listing,
    /// By the last part of the name, the first in the names' order.
    by_stem: BTreeMap<String, usize>,
    by_alias: OnceLock<BTreeMap<String, usize>>,
    opened: Vec<OnceLock<Lora>>,
}

impl LoraFolder {
    /// Lists a folder and the folders in it; opens no file.
    pub fn open(path: impl AsRef<Path>) -> Result<LoraFolder> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if !metadata.is_dir() {
            let message = "this is not a folder of LoRA files";
            let error = Error::new(ErrorKind::Lora, message).at_path(path);
            return Err(error.hint("give the folder that holds the file"));
        }
        let listing = Listing::open(path, EXTENSIONS)?;
        let mut by_stem = BTreeMap::new();
        for (name, place) in listing.names() {
            let stem = name.rsplit('/').next().unwrap_or(name);
            by_stem.entry(stem.to_owned()).or_insert(place);
        }
        Ok(LoraFolder {
            path: path.to_owned(),
            opened: (0..listing.len()).map(|_| OnceLock::new()).collect(),
            listing,
            by_stem,
            by_alias: OnceLock::new(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every name as a path below the folder, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listing.names().map(|(name, _)| name)
    }

    /// The LoRA of this name; `None` if there is none. A file that cannot be used gives its error
    /// each time. Looking for an alias opens every file, once.
    pub fn get(&self, name: &str) -> Result<Option<Lora>> {
        let found = self.listing.find(name);
        let found = found.or_else(|| self.by_stem.get(name).copied());
        match found.or_else(|| self.aliases().get(name).copied()) {
            Some(place) => self.opened(place).map(Some),
            None => Ok(None),
        }
    }

    /// Folders and files that could not be listed.
    pub fn notes(&self) -> &[String] {
        self.listing.notes()
    }

    fn opened(&self, place: usize) -> Result<Lora> {
        if let Some(opened) = self.opened[place].get() {
            return Ok(opened.clone());
        }
        let lora = Lora::open(self.listing.path(place))?;
        Ok(self.opened[place].get_or_init(|| lora).clone())
    }

    /// Files that cannot be opened have no alias.
    fn aliases(&self) -> &BTreeMap<String, usize> {
        self.by_alias.get_or_init(|| {
            let mut aliases = BTreeMap::new();
            for (_, place) in self.listing.names() {
                let lora = self.opened(place).ok();
                if let Some(alias) = lora.as_ref().and_then(|lora| lora.metadata(ALIAS)) {
                    aliases.entry(alias.to_owned()).or_insert(place);
                }
            }
            aliases
        })
    }
}
