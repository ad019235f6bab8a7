//! `gpu_check`: every CUDA kernel against its plain twin, whole encoders against f32, and the times of
//! all of it, in one run. `gpu_check [--quick] [--device N]`; a failed check is exit code 1. The table
//! comes last. `--cpu` tries the program itself: plain operations on both sides. Weights are seeded and random, so nothing is read or downloaded.
#![expect(clippy::print_stdout, reason = "a program that shows what it finds")]

mod encoders;
mod kernels;
mod measure;
mod report;

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
    /// Small encoders and few runs: does it work at all?
    quick: bool,
    cpu: bool,
    device: usize,
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
    let wishes = wishes()?;
    let mut report = Report::default();
    if let Err(error) = everything(&wishes, &mut report) {
        // The table comes last whatever happens: what was found until then is worth the run.
        let text = format!("{error:#}");
        println!("{text}");
        report.holds(text.lines().next().unwrap_or("an error"), false);
    }
    report.print();
    Ok(report.passed())
}

fn everything(wishes: &Wishes, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let since = || start.elapsed().as_secs_f64();
    let device = if wishes.cpu {
        Device::Cpu
    } else {
        Device::new_cuda(wishes.device).context("no CUDA card could be opened")?
    };
    println!("{:?}: {:?}", device.location(), device_memory(&device)?);
    kernels::check(&device, report).context("the kernels")?;
    println!("kernels checked after {:.1} s", since());
    let size = if wishes.quick {
        SyntheticSize::Tiny
    } else {
        SyntheticSize::Full
    };
    let towers = [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG];
    let check = |id: EncoderId| -> Result<Loaded> {
        let loaded = encoders::check(id, size, &device, report).with_context(|| format!("{id}"))?;
        println!("{id} checked after {:.1} s", since());
        Ok(loaded)
    };
    let loaded = towers.map(check);
    let [Ok(l), Ok(h), Ok(g)] = &loaded else {
        let failed = loaded.into_iter().find_map(Result::err);
        return failed.map_or(Ok(()), Err);
    };
    let runs = if wishes.quick { 5 } else { 50 };
    measure::all(&device, [l, h, g], runs, report).context("the times")?;
    report.memory(device_memory(&device)?);
    println!("all done after {:.1} s", since());
    Ok(())
}

fn wishes() -> Result<Wishes> {
    let mut wishes = Wishes {
        quick: false,
        cpu: false,
        device: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => wishes.quick = true,
            "--cpu" => wishes.cpu = true,
            "--device" => {
                let number = words.next().context("--device needs a number")?;
                wishes.device = number.parse().context("--device needs a number")?;
            }
            other => bail!("`{other}` is not known; gpu_check [--quick] [--cpu] [--device N]"),
        }
    }
    Ok(wishes)
}
