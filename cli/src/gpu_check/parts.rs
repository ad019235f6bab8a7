//! What is checked and measured, in parts. Each is a process of its own (`apart.rs`): a kernel that faults or never ends
//! takes its process with it, and a process whose card has faulted gets nothing right any more.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sd_conditioner::candle_core::Device;
use sd_conditioner::kernels::device_memory;
use sd_conditioner::weights::{EncoderId, SyntheticSize};

use super::report::Report;
use super::{encoders, kernels, loading, measure};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Each kernel against its plain twin; the library's products.
    Kernels,
    /// Our own products against their plain twins.
    OwnProducts,
    /// A whole encoder in all types and ways against f32.
    Encoder(EncoderId),
    /// The times of a family.
    Times(measure::Name),
    /// What a process waits for when it begins.
    Starting,
    /// From a file to tensors on the card.
    Loading,
}

impl Part {
    /// Checks before times, and of three encoders one after the other: what a run that is cut off has found is
    /// whole for some.
    pub(crate) const ALL: [Part; 10] = [
        Part::Kernels,
        Part::OwnProducts,
        Part::Encoder(EncoderId::ClipL),
        Part::Times(measure::Name::Sd1),
        Part::Encoder(EncoderId::OpenClipG),
        Part::Times(measure::Name::Sdxl),
        Part::Encoder(EncoderId::OpenClipH),
        Part::Times(measure::Name::Sd2),
        Part::Starting,
        Part::Loading,
    ];

    /// As `--part` names it.
    pub(crate) fn name(self) -> String {
        match self {
            Part::Kernels => "kernels".to_owned(),
            Part::OwnProducts => "own-products".to_owned(),
            Part::Encoder(id) => id.to_string(),
            Part::Times(family) => family.to_string(),
            Part::Starting => "starting".to_owned(),
            Part::Loading => "loading".to_owned(),
        }
    }

    pub(crate) fn named(name: &str) -> Result<Part> {
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        part.with_context(|| format!("no part is named `{name}`"))
    }
}

/// What every part is told.
pub(crate) struct Setting {
    pub(crate) device: Device,
    pub(crate) extent: Extent,
    /// Where is kept what was compiled and measured, for the parts after.
    pub(crate) folder: PathBuf,
    /// Whether our own products may be used: not where they hung or faulted.
    pub(crate) own: bool,
}

/// How much is run.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) size: SyntheticSize,
    /// Windows in a batch; the first and the last are the least and the most.
    pub(crate) batches: &'static [usize],
    /// Windows of the two measurements.
    pub(crate) measured: [usize; 2],
    pub(crate) runs: usize,
    pub(crate) warm_up: usize,
    /// Of each manner in which kernels follow each other.
    pub(crate) replays: usize,
    /// After so long what is left is not begun: a lent card is given back at some time, and the table counts.
    pub(crate) most_seconds: f64,
    /// A part that takes longer hangs.
    pub(crate) part_seconds: f64,
    /// A part that is not through by then is ended.
    pub(crate) end_seconds: f64,
}

impl Extent {
    pub(crate) const FULL: Extent = Extent {
        size: SyntheticSize::Full,
        batches: &[1, 5, 8, 130],
        measured: [2, 128],
        runs: 50,
        // Modules are loaded, products tuned, graphs captured before the first run that counts.
        warm_up: 5,
        replays: 200,
        most_seconds: 400.0,
        part_seconds: 110.0,
        end_seconds: 450.0,
    };

    /// Small encoders and few runs: does it work at all?
    pub(crate) const QUICK: Extent = Extent {
        size: SyntheticSize::Tiny,
        runs: 5,
        ..Extent::FULL
    };

    /// The least that still reaches everything, for a card that is emulated.
    pub(crate) const TINY: Extent = Extent {
        batches: &[1, 5, 9],
        measured: [2, 3],
        runs: 1,
        warm_up: 2,
        replays: 2,
        most_seconds: 7200.0,
        part_seconds: 3600.0,
        end_seconds: 10800.0,
        ..Extent::QUICK
    };
}

/// Does one part in this process.
pub(crate) fn run(part: Part, setting: &Setting, report: &mut Report) -> Result<()> {
    let done = match part {
        Part::Kernels => kernels::check(setting, report),
        Part::OwnProducts => kernels::check_own(setting, report),
        Part::Encoder(id) => encoders::check(id, setting, report),
        Part::Times(family) => measure::family(family, setting, report),
        Part::Starting => measure::starting(setting, report),
        Part::Loading => loading::all(setting, report),
    };
    let name = part.name();
    report.attempt(&name, done);
    report.memory(&name, device_memory(&setting.device)?);
    Ok(())
}
