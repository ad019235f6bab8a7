//! `encode`: one prompt and its negative into one file, or many by way of `--requests`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};

use crate::bulk::{self, Orders};
use crate::flags::EncodeFlags;
use crate::inputs::Inputs;
use crate::kinds::Kind;
use crate::progress::Progress;
use crate::scribe::Scribe;
use crate::ui::{self, Done};
use crate::values::Held;
use crate::wardrobe::{self, Wardrobe};
use crate::wishes::Wishes;
use crate::{output, pool, weights, worn};

/// Encodes and writes.
pub(crate) fn run(flags: &EncodeFlags, quiet: bool) -> Done {
    pool::start()?;
    let progress = Progress::new(quiet);
    match (&flags.target.requests, &flags.target.out_dir) {
        (Some(source), Some(folder)) => all_of(source, folder, flags, &progress),
        _ => one(flags, &progress),
    }
}

/// The requests of a file, into a folder.
fn all_of(source: &Path, folder: &Path, flags: &EncodeFlags, progress: &Progress) -> Done {
    let wishes = Wishes::from(flags);
    let supplies = flags.manner.supplies(Some(source))?;
    let orders = Orders::new(flags, folder);
    let kind = flags.bulk.kind();
    kind.expect_type(flags.target.out_dtype)?;
    let opened = bulk::open(source, &orders)?;
    let session = Session::open(flags, kind, progress)?;
    bulk::run(opened, &orders, &session, (&wishes, supplies), progress)
}

/// What the flags themselves ask for, into a file.
fn one(flags: &EncodeFlags, progress: &Progress) -> Done {
    let out = flags.target.out.as_deref().context("--out is missing")?;
    let job = Wishes::from(flags).job().map_err(|error| anyhow!(error))?;
    output::check_place(out)?;
    Inputs::of(flags).spare(out)?;
    let kind = Kind::of(out)?;
    let job = job.with_only(flags.target.only.or(kind.only()));
    let job = flags.manner.supplies(None)?.supply(job)?;
    let failed = || out.display().to_string();
    kind.expect_type(flags.target.out_dtype)
        .and_then(|()| kind.expect_job(&job))
        .with_context(failed)?;
    let session = Session::open(flags, kind, progress)?;
    let worn = wardrobe::worn(session.encoders.loaded(), &job)?;
    let made = session.encoders.encode(&job)?;
    let told = session.scribe.write(&job, &made, &worn, out)?;
    let reports = worn.iter().map(|(_, report)| report);
    for report in reports.clone() {
        progress.summary(worn::summary(report));
    }
    let unused = job.unused(session.scribe.family()).into_iter();
    let of_loras = reports.flat_map(worn::warnings);
    for warning in unused.chain(of_loras).chain(told) {
        ui::warn(warning);
    }
    session.warn_of_cache();
    progress.summary(format!("wrote {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// Loaded encoders, and what is written of what they give.
#[derive(Debug)]
pub(crate) struct Session {
    encoders: Wardrobe,
    scribe: Scribe,
}

/// A file of requests may take hours.
fn held(flags: &EncodeFlags) -> Held {
    if flags.target.requests.is_some() {
        Held::Long
    } else {
        Held::Briefly
    }
}

impl Session {
    /// Says so if the folder of `--cache-dir` could not be used as it should. No result is worse for it.
    pub(crate) fn warn_of_cache(&self) {
        let failures = self.encoders.loaded().cache_stats().disk_failures;
        if failures > 0 {
            ui::warn(format!(
                "{failures} times a file of the cache folder could not be written or read; those windows \
                 were encoded, and what was written is whole"
            ));
        }
    }

    /// Refuses encoders of a family that files of this kind have no place for.
    fn open(flags: &EncodeFlags, kind: Kind, progress: &Progress) -> anyhow::Result<Session> {
        // What a file of this kind cannot hold is the file's error; what is wrong with the weights is theirs.
        let expect = |family| {
            let held = kind.expect_family(family);
            held.map_err(|error| match &flags.target.out {
                Some(out) => error.context(out.display().to_string()),
                None => error,
            })
        };
        if let Some(family) = flags.source.family() {
            expect(family)?;
        }
        let text = weights::load(&flags.source, (&flags.compute, held(flags)), progress)?;
        expect(text.family())?;
        Ok(Session {
            scribe: Scribe::new(&text, flags, kind),
            encoders: Wardrobe::new(text),
        })
    }

    /// The encoders, with any job's `LoRAs`.
    pub(crate) fn encoders(&self) -> &Wardrobe {
        &self.encoders
    }

    /// Who writes.
    pub(crate) fn scribe(&self) -> &Scribe {
        &self.scribe
    }
}
