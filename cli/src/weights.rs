//! NAME or PATH → loaded encoders.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sd_conditioner::candle_core::DType;
use sd_conditioner::conditioner::{CacheOptions, DiskCache};
use sd_conditioner::hub::{Hub, HubOptions};
use sd_conditioner::weights::{Checkpoint, LoadReport, SyntheticSize};
use sd_conditioner::{Builder, Conditioner, Family, Result};

use crate::groups::{ComputeFlags, SourceFlags, WeightFlags};
use crate::kernels;
use crate::names::FamilyChoice;
use crate::progress::Progress;
use crate::ui;
use crate::values::Held;

/// Names listed of those that nobody read.
const UNUSED_SHOWN: usize = 3;

/// The most that a folder of `--cache-dir` takes.
const CACHE_BYTES: u64 = 4 << 30;

/// The encoders that the flags ask for. They hand out f32; the file is rounded at the very end.
pub(crate) fn load(
    flags: &SourceFlags,
    computed: (&ComputeFlags, Held),
    progress: &Progress,
) -> anyhow::Result<Conditioner> {
    let builder = builder(flags.cache_dir.as_deref(), computed)?;
    let loaded = match (flags.random_weights, flags.family()) {
        (Some(seed), Some(family)) => random(builder, family, flags.tiny, seed, progress),
        (Some(_), None) => bail!("--random-weights needs a --family other than auto"),
        (None, _) => from_files(builder, &flags.weights, progress),
    };
    progress.clear();
    let text = loaded?;
    for note in worth_telling(text.report()) {
        ui::warn(note);
    }
    Ok(text)
}

/// Where and in what numbers is computed, and what is kept. Encoders hand out f32; files are rounded at the very
/// end. What was compiled and measured for a card is kept in a folder of its own beside what windows gave, else
/// in the user's cache.
pub(crate) fn builder(
    folder: Option<&Path>,
    (compute, held): (&ComputeFlags, Held),
) -> anyhow::Result<Builder> {
    let builder = Conditioner::builder()
        .device(compute.device.open()?)
        .dtype(compute.dtype.dtype())
        .output_dtype(DType::F32)
        .cache(kept(folder));
    let builder = if compute.keep_quantized {
        builder.keep_quantized()
    } else {
        builder
    };
    let builder = compute.map_files.set(builder, held);
    let measured = match folder {
        Some(folder) => Some(folder.join("kernels")),
        None if compute.device.is_card() => kernels::folder(variable),
        None => None,
    };
    Ok(compute.kernels.set(builder, measured))
}

/// In memory as always, and in the folder named.
fn kept(folder: Option<&Path>) -> CacheOptions {
    let disk = folder.map(|folder| DiskCache {
        folder: folder.to_owned(),
        max_bytes: CACHE_BYTES,
    });
    CacheOptions {
        disk,
        ..CacheOptions::default()
    }
}

fn random(
    builder: Builder,
    family: Family,
    tiny: bool,
    seed: u64,
    progress: &Progress,
) -> anyhow::Result<Conditioner> {
    ui::warn(format!(
        "random weights (seed {seed}): the embeddings mean nothing; use them for tests only"
    ));
    let size = if tiny {
        SyntheticSize::Tiny
    } else {
        SyntheticSize::Full
    };
    let mut tell = |encoder, done, total| progress.loading(encoder, done, total);
    Ok(builder.random_weights_with_progress(family, size, seed, &mut tell)?)
}

fn from_files(
    builder: Builder,
    flags: &WeightFlags,
    progress: &Progress,
) -> anyhow::Result<Conditioner> {
    let found = Found::all(&flags.weights, |hub, name| {
        Ok(hub.fetch(name, &mut |now| progress.fetching(now))?.paths)
    })?;
    let checkpoints = open_all(&found.paths, flags.variant.as_deref())?;
    let builder = match flags.family.0.or(found.family) {
        Some(family) => builder.family(family),
        None => builder,
    };
    let mut tell = |encoder, done, total| progress.loading(encoder, done, total);
    Ok(builder.load_with_progress(&checkpoints, &mut tell)?)
}

/// An error for what is no path but a name that `pull` knows, with its advice.
pub(crate) fn expect_path(path: &Path) -> anyhow::Result<()> {
    let name = path.to_str().filter(|_| path.symlink_metadata().is_err());
    if let Some(name) = name
        && hub()?.catalog().get(name).is_ok()
    {
        bail!(
            "{name}: there is no such file here; `sd-conditioner pull {name}` fetches the checkpoint of this name and says where it is"
        );
    }
    Ok(())
}

/// Reads the headers of each.
pub(crate) fn open_all(paths: &[PathBuf], variant: Option<&str>) -> Result<Vec<Checkpoint>> {
    let opened = paths
        .iter()
        .map(|path| Checkpoint::open_variant(path, variant));
    opened.collect()
}

/// What `--weights` stands for.
pub(crate) struct Found {
    pub(crate) paths: Vec<PathBuf>,
    /// What the catalog says, where one name stands for everything.
    pub(crate) family: Option<Family>,
}

impl Found {
    /// Paths as they are; names by way of `fetch`. A path that exists goes before a name.
    pub(crate) fn all(
        given: &[String],
        fetch: impl Fn(&Hub, &str) -> anyhow::Result<Vec<PathBuf>>,
    ) -> anyhow::Result<Found> {
        let mut paths = Vec::new();
        let mut families = Vec::new();
        for one in given {
            if Path::new(one).exists() {
                paths.push(PathBuf::from(one));
                continue;
            }
            let hub = hub()?;
            families.push(known(&hub, one)?);
            paths.extend(fetch(&hub, one)?);
        }
        let family = families.pop().filter(|_| given.len() == 1);
        Ok(Found { paths, family })
    }
}

/// The family of what `--weights` and `--family` name, without loading or fetching anything.
pub(crate) fn family(flags: &WeightFlags) -> anyhow::Result<Option<Family>> {
    let FamilyChoice(named) = flags.family;
    if named.is_some() || flags.weights.is_empty() {
        return Ok(named);
    }
    let found = Found::all(&flags.weights, |_, _| Ok(Vec::new()))?;
    if found.family.is_some() {
        return Ok(found.family);
    }
    let checkpoints = open_all(&found.paths, flags.variant.as_deref())?;
    let (family, _) = sd_conditioner::weights::combine(&checkpoints, None)?;
    Ok(Some(family))
}

fn known(hub: &Hub, name: &str) -> anyhow::Result<Family> {
    let entry = hub.catalog().get(name);
    let entry = entry.with_context(|| format!("{name}: there is no such file or folder"))?;
    Ok(entry.family)
}

/// The hub as the environment describes it.
pub(crate) fn hub() -> Result<Hub> {
    Ok(Hub::new(hub_options()?))
}

/// The environment's `HF_` variables.
pub(crate) fn hub_options() -> Result<HubOptions> {
    HubOptions::from_variables(variable)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command is the one place that reads the environment, and passes it on"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What nobody would want to miss: damage that was mended, tensors that no rule knows.
fn worth_telling(report: &LoadReport) -> Vec<String> {
    let mut told = report.notes.clone();
    if let Some(first) = report.unused.get(..report.unused.len().min(UNUSED_SHOWN))
        && !first.is_empty()
    {
        let (count, names) = (report.unused.len(), first.join(", "));
        told.push(format!(
            "{count} tensors of the encoders were not used: {names} …"
        ));
    }
    told
}
