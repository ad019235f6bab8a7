//! `gpu_check`: every CUDA kernel against its plain twin, whole encoders against f32, and the times of
//! all of it, in one run. `gpu_check [--quick | --tiny] [--device N]`; a failed check is exit code 1. The
//! table comes last, whatever fails before: each part has a process of its own, which may fault or hang.
//! `--tiny` is the least that still reaches everything, for a card that is emulated. `--cpu` tries the program
//! itself: plain operations on both sides. `--part NAME` does one part only; `--without-own` goes without our own
//! products. Weights are seeded
//! and random, so nothing is downloaded; a file of 1.6 GB is written to the folder for temporary files, loaded
//! and removed.
#![expect(clippy::print_stdout, reason = "a program that shows what it finds")]

mod apart;
mod encoders;
mod following;
mod kernels;
mod loading;
mod measure;
mod parts;
mod report;
mod ways;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use sd_conditioner::candle_core::Device;

use parts::{Extent, Part, Setting};
use report::Report;

/// What may be asked for.
const WORDS: &str = "[--quick | --tiny] [--cpu] [--device N] [--part NAME] [--without-own]";

/// What is asked for.
struct Wishes {
    extent: Extent,
    cpu: bool,
    device: usize,
    /// This one only, in this process.
    part: Option<Part>,
    /// Of the parts of one run.
    folder: Option<PathBuf>,
    /// No products of our own.
    without_own: bool,
}

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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wishes = wishes(&words)?;
    let own = std::env::temp_dir().join(format!("gpu_check-{}", std::process::id()));
    let folder = wishes.folder.as_deref().unwrap_or(&own);
    std::fs::create_dir_all(folder).context("no folder for what is measured")?;
    let report = match wishes.part {
        Some(part) => alone(part, &wishes, folder),
        None => apart::all(&words, &wishes.extent, folder),
    };
    if wishes.folder.is_none() {
        report.print();
        // Left behind, it is a few KiB in the folder for such things.
        let _ = std::fs::remove_dir_all(&own);
    }
    Ok(report.passed())
}

/// One part in this process. What was found until a panic is worth the run.
fn alone(part: Part, wishes: &Wishes, folder: &Path) -> Report {
    let mut report = Report::telling();
    let done = catch_unwind(AssertUnwindSafe(|| {
        let setting = Setting {
            device: opened(wishes)?,
            extent: wishes.extent,
            folder: folder.to_owned(),
            own: !wishes.without_own,
        };
        parts::run(part, &setting, &mut report)
    }));
    match done {
        Ok(done) => drop(report.attempt(&part.name(), done)),
        Err(_) => report.holds(&format!("{}: a panic", part.name()), false),
    }
    report
}

fn opened(wishes: &Wishes) -> Result<Device> {
    if wishes.cpu {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(wishes.device).context("no CUDA card could be opened")
}

fn wishes(words: &[String]) -> Result<Wishes> {
    let mut wishes = Wishes {
        extent: Extent::FULL,
        cpu: false,
        device: 0,
        part: None,
        folder: None,
        without_own: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--quick" => wishes.extent = Extent::QUICK,
            "--tiny" => wishes.extent = Extent::TINY,
            "--cpu" => wishes.cpu = true,
            "--device" => wishes.device = value()?.parse().context("--device needs a number")?,
            "--part" => wishes.part = Some(Part::named(value()?)?),
            "--folder" => wishes.folder = Some(value()?.into()),
            "--without-own" => wishes.without_own = true,
            other => bail!("`{other}` is not known; gpu_check {WORDS}"),
        }
    }
    Ok(wishes)
}
