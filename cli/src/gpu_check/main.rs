//! `gpu_check`: every CUDA kernel against its plain twin, whole encoders against f32, and the times of
//! all of it, in one run. `gpu_check [--quick | --tiny] [--device N]`; a failed check is exit code 1. The
//! table comes last, whatever fails before. `--tiny` is the least that still reaches everything, for a card
//! that is emulated. `--cpu` tries the program itself: plain operations on both sides. Weights are seeded
//! and random, so nothing is downloaded; a file of 1.6 GB is written to the folder for temporary files, loaded
//! and removed.
#![expect(clippy::print_stdout, reason = "a program that shows what it finds")]

mod encoders;
mod following;
mod kernels;
mod loading;
mod measure;
mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sd_conditioner::candle_core::Device;
use sd_conditioner::kernels::device_memory;
use sd_conditioner::weights::{EncoderId, SyntheticSize};

use encoders::Loaded;
use report::Report;

/// What is asked for.
struct Wishes {
    extent: Extent,
    cpu: bool,
    device: usize,
}

/// How much is run.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    size: SyntheticSize,
    /// Windows in a batch; the first and the last are the least and the most.
    batches: &'static [usize],
    /// Windows of the two measurements.
    measured: [usize; 2],
    runs: usize,
    warm_up: usize,
    /// Of each manner in which kernels follow each other.
    replays: usize,
    /// After so long what is left is not begun: a lent card is given back at some time, and the table counts.
    most_seconds: f64,
}

const FULL: Extent = Extent {
    size: SyntheticSize::Full,
    batches: &[1, 5, 8, 130],
    measured: [2, 128],
    runs: 50,
    // Modules are loaded, products tuned, graphs captured before the first run that counts.
    warm_up: 5,
    replays: 200,
    most_seconds: 400.0,
};

/// Small encoders and few runs: does it work at all?
const QUICK: Extent = Extent {
    size: SyntheticSize::Tiny,
    runs: 5,
    ..FULL
};

const TINY: Extent = Extent {
    batches: &[1, 5, 9],
    measured: [2, 3],
    runs: 1,
    warm_up: 2,
    replays: 2,
    most_seconds: 7200.0,
    ..QUICK
};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let wishes = wishes()?;
    let mut report = Report::default();
    let measured = measured_folder();
    std::fs::create_dir_all(&measured).context("no folder for what is measured")?;
    // What was found until then is worth the run, whatever happens.
    let done = catch_unwind(AssertUnwindSafe(|| everything(&wishes, &mut report)));
    match done {
        Ok(done) => drop(report.attempt("the run", done)),
        Err(_) => report.holds("the run: a panic", false),
    }
    report.print();
    // Left behind, it is a few KiB in the folder for such things.
    let _ = std::fs::remove_dir_all(measured);
    Ok(report.passed())
}

/// Where this run keeps which products are fastest.
pub(crate) fn measured_folder() -> PathBuf {
    std::env::temp_dir().join(format!("gpu_check-{}", std::process::id()))
}

fn everything(wishes: &Wishes, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let device = opened(wishes)?;
    println!("{:?}: {:?}", device.location(), device_memory(&device)?);
    let checked = kernels::check(&device, report);
    report.attempt("the kernels", checked);
    println!("kernels checked after {:.1} s", seconds_since(start));
    let towers = [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG];
    let extent = &wishes.extent;
    let [l, h, g] = towers.map(|id| in_time_checked(id, (extent, start), &device, report));
    let in_time = || seconds_since(start) < extent.most_seconds;
    measure::all(
        &device,
        [l.as_ref(), h.as_ref(), g.as_ref()],
        (extent, &in_time),
        report,
    );
    let loaded = g.as_ref().or(l.as_ref()).filter(|_| in_time());
    match loaded.map(|loaded| measure::starting(&device, loaded, report)) {
        Some(measured) => drop(report.attempt("the first calls", measured)),
        None => report.note("the first calls", "not measured"),
    }
    loading::all(&device, (extent.size, &in_time), report);
    report.memory(device_memory(&device)?);
    println!("all done after {:.1} s", seconds_since(start));
    Ok(())
}

fn opened(wishes: &Wishes) -> Result<Device> {
    if wishes.cpu {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(wishes.device).context("no CUDA card could be opened")
}

fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// Checks one encoder, as long as there is time.
fn in_time_checked(
    id: EncoderId,
    (extent, start): (&Extent, Instant),
    device: &Device,
    report: &mut Report,
) -> Option<Loaded> {
    if seconds_since(start) > extent.most_seconds {
        report.holds(&format!("{id}: not begun, out of time"), false);
        return None;
    }
    let checked = encoders::check(id, extent, device, report);
    println!("{id} checked after {:.1} s", seconds_since(start));
    report.attempt(&id.to_string(), checked)
}

fn wishes() -> Result<Wishes> {
    let mut wishes = Wishes {
        extent: FULL,
        cpu: false,
        device: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => wishes.extent = QUICK,
            "--tiny" => wishes.extent = TINY,
            "--cpu" => wishes.cpu = true,
            "--device" => {
                let number = words.next().context("--device needs a number")?;
                wishes.device = number.parse().context("--device needs a number")?;
            }
            other => {
                bail!("`{other}` is not known; gpu_check [--quick | --tiny] [--cpu] [--device N]")
            }
        }
    }
    Ok(wishes)
}
