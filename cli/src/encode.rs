//! `encode`: one prompt and its negative into one file, or many by way of `--requests`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use sd_conditioner::{Family, Guidance, storage};

use crate::flags::EncodeFlags;
use crate::job::{Job, Side};
use crate::kinds::{self, Kind};
use crate::progress::Progress;
use crate::schedules::PassConditionings;
use crate::together::Made;
use crate::ui::{self, Done};
use crate::values::Precision;
use crate::wardrobe::{Wardrobe, Worn};
use crate::wishes::Wishes;
use crate::{notes, output, requests, weights, worn};

/// Encodes and writes.
pub(crate) fn run(flags: &EncodeFlags, quiet: bool) -> Done {
    let wishes = Wishes::from(flags);
    let progress = Progress::new(quiet);
    let target = &flags.target;
    if let (Some(source), Some(folder)) = (&target.requests, &target.out_dir) {
        let supplies = flags.manner.supplies(Some(source))?;
        let source = requests::open(source, folder)?;
        let session = Session::open(flags, &progress)?;
        return requests::run(source, &session, (&wishes, supplies), &progress);
    }
    let out = target.out.as_deref().context("--out is missing")?;
    let job = wishes.job().map_err(|error| anyhow!(error))?;
    let job = flags.manner.supplies(None)?.supply(job)?;
    output::check_place(out)?;
    let session = Session::open(flags, &progress)?;
    let worn = session.encoders.worn(&job)?;
    let made = session.encoders.encode(&job)?;
    let told = session.write(&job, &made, &worn, out)?;
    let reports = worn.iter().map(|(_, report)| report);
    for report in reports.clone() {
        progress.summary(worn::summary(report));
    }
    let of_loras = reports.flat_map(worn::warnings);
    let warnings = session.unused(&job).into_iter().chain(of_loras);
    for warning in warnings.chain(told) {
        ui::warn(warning);
    }
    progress.summary(format!("wrote {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// What a file says of itself.
type Metadata = BTreeMap<String, String>;

/// Loaded encoders, and what every file's metadata say of them.
#[derive(Debug)]
pub(crate) struct Session {
    encoders: Wardrobe,
    out: Precision,
    facts: Metadata,
}

impl Session {
    fn open(flags: &EncodeFlags, progress: &Progress) -> anyhow::Result<Session> {
        let text = weights::load(&flags.source, &flags.compute, progress)?;
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
        Ok(Session {
            encoders: Wardrobe::new(text),
            out: flags.target.out_dtype,
            facts: facts.map(|(key, value)| (key.to_owned(), value)).collect(),
        })
    }

    fn family(&self) -> Family {
        self.encoders.loaded().family()
    }

    /// What the job asks for and these encoders have no use for.
    pub(crate) fn unused(&self, job: &Job) -> Vec<String> {
        job.unused(self.family())
    }

    /// The encoders, with any job's `LoRAs`.
    pub(crate) fn encoders(&self) -> &Wardrobe {
        &self.encoders
    }

    /// Writes what a job gave into a file. Returns what should be told of it.
    pub(crate) fn write(
        &self,
        job: &Job,
        made: &Made,
        worn: &[Worn],
        path: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let metadata = self.metadata(job, worn);
        match made {
            Made::Pair(guidance) => self.write_pair(job, guidance, &metadata, path),
            Made::Passes(passes) => self.write_passes(job, passes, metadata, path),
        }
    }

    fn write_pair(
        &self,
        job: &Job,
        guidance: &Guidance,
        metadata: &Metadata,
        path: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let told = notes::of_pair(job, self.encoders.loaded(), guidance).into_iter();
        let mut told: Vec<String> = told.map(|told| told.to_string()).collect();
        match Kind::of(path) {
            Kind::Pair => {
                let tensors = output::of_pair(guidance, self.out.dtype())?;
                storage::write_tensors(path, &tensors, metadata)?;
            }
            kind => {
                kinds::write(kind, path, guidance, self.out.dtype())?;
                if job.text(Side::Negative).is_some() {
                    told.push(
                        "a file of this kind holds one prompt: the negative is not in it"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(told)
    }

    fn write_passes(
        &self,
        job: &Job,
        passes: &[PassConditionings],
        mut metadata: Metadata,
        path: &Path,
    ) -> anyhow::Result<Vec<String>> {
        if Kind::of(path) != Kind::Pair {
            bail!(
                "{}: only a .safetensors file has a place for step ranges",
                path.display()
            );
        }
        let tensors = output::of_passes(passes, self.out.dtype())?;
        for pass in passes {
            metadata.insert(pass.pass.key.to_owned(), pass.metadata().to_string());
        }
        storage::write_tensors(path, &tensors, &metadata)?;
        let told = notes::of_passes(job, self.family(), passes).into_iter();
        Ok(told.map(|told| told.to_string()).collect())
    }

    fn metadata(&self, job: &Job, worn: &[Worn]) -> Metadata {
        let mut metadata = job.metadata();
        metadata.extend(self.facts.clone());
        if !worn.is_empty() {
            metadata.insert("loras".to_owned(), worn::metadata(worn).to_string());
        }
        metadata
    }
}
