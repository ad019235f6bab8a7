//! What the files hold that a job uses: another content under the same name is another request.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sd_conditioner::weights::WeightedLora;
use sd_conditioner::{Embeddings, Family};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::job::{Job, Side};

/// Files whose hashes are remembered.
const FILES_AT_MOST: usize = 1 << 14;

/// PEFT's strengths, beside the file that they are for.
const CONFIGURATION: &str = "adapter_config.json";

/// A file that a job uses, or may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Content {
    pub(crate) name: String,
    /// Of what it holds: 64 digits, or why it cannot be read.
    pub(crate) hash: String,
}

/// The contents of a job's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) loras: Vec<Content>,
    pub(crate) embeddings: Vec<Content>,
}

impl Contents {
    pub(crate) fn is_empty(&self) -> bool {
        self.loras.is_empty() && self.embeddings.is_empty()
    }
}

/// Makes each hash once a run.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    files: HashMap<PathBuf, String>,
    /// The last set of embeddings.
    known: Option<(Arc<Embeddings>, Vec<Known>)>,
}

/// An embedding of a set.
#[derive(Debug)]
struct Known {
    name: String,
    /// As [`plain`] has it.
    plain: Option<String>,
    hash: Option<String>,
}

impl Hashes {
    /// What the files of a job hold: its `LoRAs`, those that its prompt names, and the embeddings that
    /// its texts may name.
    pub(crate) fn of(&mut self, job: &Job) -> Result<Contents> {
        let mut loras = Vec::new();
        let named = job.request(Family::Sd1, Side::Positive).named_loras()?;
        for lora in job.loras().iter().chain(&named) {
            loras.push(self.lora(lora)?);
        }
        let embeddings = match job.embeddings() {
            Some(set) => self.embeddings(set, job),
            None => Vec::new(),
        };
        Ok(Contents { loras, embeddings })
    }

    fn lora(&mut self, lora: &WeightedLora) -> Result<Content> {
        let path = lora.lora().path();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Content {
            name: name.to_string_lossy().into_owned(),
            hash: self.file(path)?,
        })
    }

    /// Of all bytes of a file, and of its configuration.
    fn file(&mut self, path: &Path) -> Result<String> {
        if let Some(hash) = self.files.get(path) {
            return Ok(hash.clone());
        }
        let failed = || path.display().to_string();
        let mut hash = Sha256::new();
        io::copy(
            &mut File::open(path).with_context(failed)?,
            &mut Sink(&mut hash),
        )
        .with_context(failed)?;
        // Without one there is nothing to read, and a pipe would wait for its writer.
        let beside = path.with_file_name(CONFIGURATION);
        if beside.is_file()
            && let Ok(mut file) = File::open(beside)
        {
            hash.update(CONFIGURATION);
            io::copy(&mut file, &mut Sink(&mut hash)).with_context(failed)?;
        }
        let digits = hash.finalize();
        let digits = digits.iter().map(|byte| format!("{byte:02x}"));
        let digits = digits.collect::<Vec<_>>().concat();
        if self.files.len() >= FILES_AT_MOST {
            self.files.clear();
        }
        self.files.insert(path.to_owned(), digits.clone());
        Ok(digits)
    }

    fn embeddings(&mut self, set: &Arc<Embeddings>, job: &Job) -> Vec<Content> {
        let is_last = |(last, _): &(Arc<Embeddings>, _)| Arc::ptr_eq(last, set);
        if !self.known.as_ref().is_some_and(is_last) {
            self.known = Some((Arc::clone(set), known(set)));
        }
        let texts = job.texts().into_iter();
        let texts: Vec<String> = texts.map(|(_, text)| folded(text)).collect();
        let all = self.known.iter_mut().flat_map(|(_, known)| known);
        let named = all.filter(|one| {
            let plain = one.plain.as_deref();
            plain.is_none_or(|plain| texts.iter().any(|text| text.contains(plain)))
        });
        let contents = named.map(|one| Content {
            name: one.name.clone(),
            hash: one.hash(set),
        });
        contents.collect()
    }
}

impl Known {
    fn hash(&mut self, set: &Embeddings) -> String {
        let made = || {
            let found = set.find(&self.name).transpose()?;
            Some(found.and_then(|embedding| embedding.fingerprint()))
        };
        let hash = self.hash.get_or_insert_with(|| match made() {
            Some(Ok(hash)) => hash,
            // It is a note on the prompt.
            Some(Err(error)) => error.to_string(),
            None => String::new(),
        });
        hash.clone()
    }
}

fn known(set: &Embeddings) -> Vec<Known> {
    let names = set.names().into_iter();
    let known = names.map(|name| Known {
        plain: plain(name.rsplit('/').next().unwrap_or(&name)),
        name,
        hash: None,
    });
    known.collect()
}

/// What of a name is in each text that names it, however a tool cuts texts into words; `None` where
/// that cannot be said.
fn plain(name: &str) -> Option<String> {
    let plain = folded(name);
    (name.is_ascii() && !plain.is_empty()).then_some(plain)
}

/// Letters and digits, in small letters.
fn folded(text: &str) -> String {
    let signs = text.chars().filter(char::is_ascii_alphanumeric);
    signs.map(|sign| sign.to_ascii_lowercase()).collect()
}

/// Takes what is written for a hash.
struct Sink<'a>(&'a mut Sha256);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_configuration_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.safetensors");
        std::fs::write(&path, "film").unwrap();
        let alone = Hashes::default().file(&path).unwrap();
        let beside = folder.path().join(CONFIGURATION);
        std::fs::create_dir(&beside).unwrap();
        assert_eq!(Hashes::default().file(&path).unwrap(), alone);
        std::fs::remove_dir(&beside).unwrap();
        std::fs::write(&beside, "{}").unwrap();
        assert_ne!(Hashes::default().file(&path).unwrap(), alone);
    }

    #[test]
    fn a_name_is_in_each_text_that_names_it() {
        let is_named =
            |name: &str, text: &str| plain(name).is_none_or(|plain| folded(text).contains(&plain));
        assert!(is_named("bad-hands", "a cat, Bad - Hands"));
        assert!(is_named("xl/style", "embedding:xl/style, fog"));
        assert!(is_named("<s>", "a robot, <s>"));
        assert!(is_named("猫", "a cat") && is_named("<>", "a cat"));
        assert!(!is_named("bad-hands", "a hand"));
    }
}
