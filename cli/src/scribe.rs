//! What a job gave → what is written of it.

use std::collections::BTreeMap;
use std::path::Path;

use sd_conditioner::{Conditioner, Family, Result, storage};

use crate::finite;
use crate::flags::EncodeFlags;
use crate::job::Job;
use crate::kinds::{self, Kind};
use crate::notes;
use crate::output::{self, Named};
use crate::together::Made;
use crate::values::Precision;
use crate::wardrobe::Worn;
use crate::worn;

/// What a file says of itself.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Keys of metadata that are known only when a job is encoded.
pub(crate) const SCHEDULES: [&str; 2] = ["schedule", "hires_schedule"];

/// Knows what every file says of the encoders, and in which type tensors are written.
#[derive(Clone, Debug)]
pub(crate) struct Scribe {
    text: Conditioner,
    out: Precision,
    facts: Metadata,
    kind: Kind,
}

/// What is written of one job, under the names of its kind.
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) tensors: Named,
    pub(crate) metadata: Metadata,
    /// What a person should be told.
    pub(crate) told: Vec<String>,
    pub(crate) kind: Kind,
}

impl Sheet {
    /// A file of it.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        kinds::to_bytes(self.kind, &self.tensors, &self.metadata)
    }
}

impl Scribe {
    pub(crate) fn new(text: &Conditioner, flags: &EncodeFlags, kind: Kind) -> Scribe {
        let mut facts = BTreeMap::from([
            ("family", text.family().name().to_owned()),
            ("checkpoint_hash", text.fingerprint().to_owned()),
            ("crate_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("generator", "sd-conditioner".to_owned()),
            ("dtype", flags.compute.dtype.dtype().as_str().to_owned()),
        ]);
        if let Some(seed) = flags.source.random_weights {
            facts.insert("random_weights", seed.to_string());
        }
        let facts = facts.into_iter();
        Scribe {
            kind,
            text: text.clone(),
            out: flags.target.out_dtype,
            facts: facts.map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    pub(crate) fn family(&self) -> Family {
        self.text.family()
    }

    /// The encoders as they were loaded.
    pub(crate) fn text(&self) -> &Conditioner {
        &self.text
    }

    /// What is the same for all files of a run.
    pub(crate) fn facts(&self) -> &Metadata {
        &self.facts
    }

    /// The name of the type in which tensors are written.
    pub(crate) fn out_dtype(&self) -> &'static str {
        self.out.dtype().as_str()
    }

    /// What a file of a job says of itself, but for its [`SCHEDULES`].
    pub(crate) fn metadata(&self, job: &Job, worn: &[Worn]) -> Metadata {
        let mut metadata = job.metadata();
        metadata.extend(self.facts.clone());
        if !worn.is_empty() {
            metadata.insert("loras".to_owned(), worn::metadata(worn).to_string());
        }
        metadata
    }

    /// Tensors and metadata.
    ///
    /// # Errors
    ///
    /// A value that is not finite in the type that is written: the side and the tensor are named.
    pub(crate) fn sheet(&self, job: &Job, made: &Made, worn: &[Worn]) -> Result<Sheet> {
        let sheet = self.drawn(job, made, worn);
        let sheet = sheet.map_err(|error| finite::blamed(error, made, self.out.dtype()))?;
        finite::expect(&sheet.tensors)?;
        Ok(sheet)
    }

    fn drawn(&self, job: &Job, made: &Made, worn: &[Worn]) -> Result<Sheet> {
        let (mut metadata, dtype) = (self.metadata(job, worn), self.out.dtype());
        let (tensors, told) = match made {
            Made::Sides(sides) => {
                let (tensors, more) = kinds::tensors(self.kind, sides, dtype)?;
                metadata.extend(more);
                (tensors, notes::of_sides(job, &self.text, sides))
            }
            Made::Passes(passes) => {
                for pass in passes {
                    metadata.insert(pass.pass.key.to_owned(), pass.metadata().to_string());
                }
                let told = notes::of_passes(job, self.family(), passes);
                (output::of_passes(passes, dtype)?, told)
            }
        };
        Ok(Sheet {
            tensors,
            metadata,
            told: notes::shown(&told),
            kind: self.kind,
        })
    }

    /// Writes a file. Returns what should be told of it.
    pub(crate) fn write(
        &self,
        job: &Job,
        made: &Made,
        worn: &[Worn],
        path: &Path,
    ) -> Result<Vec<String>> {
        let sheet = self.sheet(job, made, worn)?;
        match self.kind {
            Kind::Pair | Kind::ComfyUi => {
                storage::write_tensors(path, &sheet.tensors, &sheet.metadata)?;
            }
            Kind::Kohya => storage::write_file(path, &sheet.to_bytes()?)?,
        }
        Ok(sheet.told)
    }
}
