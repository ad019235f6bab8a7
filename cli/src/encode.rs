//! `encode`: one prompt and its negative into one file, or many by way of `--requests`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use sd_conditioner::{Conditioner, Guidance, Result};

use crate::embeddings::Shelf;
use crate::flags::EncodeFlags;
use crate::job::Job;
use crate::progress::Progress;
use crate::schedules::PassConditionings;
use crate::together::{self, Made};
use crate::ui::{self, Done};
use crate::values::Precision;
use crate::wishes::Wishes;
use crate::{notes, output, requests, weights};

/// Encodes and writes.
pub(crate) fn run(flags: &EncodeFlags, quiet: bool) -> Done {
    let wishes = Wishes::from(flags);
    let progress = Progress::new(quiet);
    let target = &flags.target;
    if let (Some(source), Some(folder)) = (&target.requests, &target.out_dir) {
        let shelf = Shelf::open(flags.manner.embeddings.as_deref(), Some(source))?;
        let source = requests::open(source, folder)?;
        let session = Session::open(flags, &progress)?;
        return requests::run(source, &session, (&wishes, shelf), &progress);
    }
    let out = target.out.as_deref().context("--out is missing")?;
    let job = wishes.job().map_err(|error| anyhow!(error))?;
    let job = Shelf::open(flags.manner.embeddings.as_deref(), None)?.supply(job)?;
    output::check_place(out)?;
    let session = Session::open(flags, &progress)?;
    let made = together::encode(&session.text, &job)?;
    let told = session.write(&job, &made, out)?;
    for warning in session.unused(&job).into_iter().chain(told) {
        ui::warn(warning);
    }
    progress.summary(format!("wrote {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// Loaded encoders, and what every file's metadata say of them.
#[derive(Debug)]
pub(crate) struct Session {
    text: Conditioner,
    out: Precision,
    facts: BTreeMap<String, String>,
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
            text,
            out: flags.target.out_dtype,
            facts: facts.map(|(key, value)| (key.to_owned(), value)).collect(),
        })
    }

    /// What the job asks for and these encoders have no use for.
    pub(crate) fn unused(&self, job: &Job) -> Vec<String> {
        job.unused(self.text.family())
    }

    /// Encodes several jobs; one answer for each, in order.
    pub(crate) fn encode_all(&self, jobs: &[&Job]) -> Vec<Result<Made>> {
        together::encode_all(&self.text, jobs)
    }

    /// Writes what a job gave into a file. Returns what should be told of it.
    pub(crate) fn write(&self, job: &Job, made: &Made, path: &Path) -> anyhow::Result<Vec<String>> {
        match made {
            Made::Pair(guidance) => self.write_pair(job, guidance, path),
            Made::Passes(passes) => self.write_passes(job, passes, path),
        }
    }

    fn write_pair(
        &self,
        job: &Job,
        guidance: &Guidance,
        path: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let tensors = output::of_pair(guidance, self.out.dtype())?;
        output::write(path, &tensors, &self.metadata(job))?;
        let told = notes::of_pair(job, &self.text, guidance).into_iter();
        Ok(told.map(|told| told.to_string()).collect())
    }

    fn write_passes(
        &self,
        job: &Job,
        passes: &[PassConditionings],
        path: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let tensors = output::of_passes(passes, self.out.dtype())?;
        let mut metadata = self.metadata(job);
        for pass in passes {
            metadata.insert(pass.pass.key.to_owned(), pass.metadata().to_string());
        }
        output::write(path, &tensors, &metadata)?;
        let told = notes::of_passes(job, passes).into_iter();
        Ok(told.map(|told| told.to_string()).collect())
    }

    fn metadata(&self, job: &Job) -> BTreeMap<String, String> {
        let mut metadata = job.metadata();
        metadata.extend(self.facts.clone());
        metadata
    }
}
