//! `bench`: how long each stage takes on this machine, with nothing kept from one run to the next.

mod report;
mod stages;
mod threads;
mod timing;

use std::process::ExitCode;

use clap::{ArgGroup, Args};

use self::report::Report;
use self::stages::Bench;
use self::timing::Runs;
use crate::groups::{ComputeFlags, SourceFlags, Wrong};
use crate::progress::Progress;
use crate::ui::Done;
use crate::values::{Held, Place};
use crate::{pool, weights};

/// Windows of one prompt and its negative.
const PAIR: usize = 2;

/// No bench needs more; the memory of a forward grows with it.
const WINDOWS_AT_MOST: i64 = 4096;

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("source").args(["weights", "random_weights"]).required(true))]
pub(crate) struct BenchFlags {
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    compute: ComputeFlags,
    /// Windows of 77 ids in the stages `tokens` and `encode`, all different; 2 are a pair
    #[arg(long, value_name = "N", default_value_t = PAIR, value_parser = windows())]
    windows: usize,
    /// Prompts of one window in the stage `batch` [default: 16 on the CPU, 128 elsewhere]
    #[arg(long, value_name = "N", value_parser = windows())]
    batch: Option<usize>,
    /// Threads of the CPU [default: `RAYON_NUM_THREADS`, else one for each core]
    #[arg(long, value_name = "N", value_parser = threads::parser())]
    threads: Option<usize>,
    /// Timed runs of each stage, behind two that warm up [default: as many as fit in three seconds, 5
    /// to 50]
    #[arg(long, value_name = "N", value_parser = timing::parser())]
    runs: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl BenchFlags {
    /// What clap's own rules cannot say.
    pub(crate) fn wrong(&self) -> Wrong {
        let missing = clap::error::ErrorKind::MissingRequiredArgument;
        self.source.wrong().map(|message| (missing, message))
    }

    fn batch(&self) -> usize {
        let default = match self.compute.device {
            Place::Cpu => 16,
            Place::Cuda(_) | Place::Metal => 128,
        };
        self.batch.unwrap_or(default)
    }
}

/// Loads, runs every stage, and prints each as it is measured.
pub(crate) fn run(flags: &BenchFlags, quiet: bool) -> Done {
    let threads = match threads::settle(flags.threads)? {
        threads::Settled::Here(threads) => threads,
        threads::Settled::Elsewhere(code) => return Ok(code),
    };
    pool::start_all(threads)?;
    let progress = Progress::new(quiet);
    let (text, load) =
        timing::once(|| weights::load(&flags.source, (&flags.compute, Held::Briefly), &progress))?;
    let report = Report::new(&text, (&flags.source, &flags.compute), threads, flags.json)?;
    report.row("load", 0, &load)?;
    let ((), first) = timing::once(|| stages::pair(&text, 0))?;
    report.row("first", PAIR, &first)?;
    let bench = Bench::new(&text, flags.windows, flags.batch())?;
    let runs = Runs::of(flags.runs);
    for stage in bench.stages() {
        let times = timing::many(runs, |run| (stage.work)(run))?;
        report.row(stage.name, stage.windows, &times)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn windows() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u32)
        .range(1..=WINDOWS_AT_MOST)
        .map(|count| count as usize)
}
