//! `gpu_check`: every CUDA kernel against its plain twin, whole encoders against f32, and the times of
//! all of it, in one run. `gpu_check [--quick] [--device N]`; a failed check is exit code 1. The table
//! comes last. Weights are seeded and random, so nothing is read or downloaded.
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
    let start = Instant::now();
    let device = Device::new_cuda(wishes.device).context("no CUDA card could be opened")?;
    let mut report = Report::default();
    println!("card {}: {:?}", wishes.device, device_memory(&device)?);
    kernels::check(&device, &mut report)?;
    println!(
        "kernels checked after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let size = if wishes.quick {
        SyntheticSize::Tiny
    } else {
        SyntheticSize::Full
    };
    let mut measured = Vec::new();
    for id in [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG] {
        let loaded =
            encoders::check(id, size, &device, &mut report).with_context(|| format!("{id}"))?;
        println!("{id} checked after {:.1} s", start.elapsed().as_secs_f64());
        measured.push(loaded);
    }
    let [l, h, g] =
        <[Loaded; 3]>::try_from(measured).map_err(|_| anyhow::anyhow!("three encoders"))?;
    let runs = if wishes.quick { 5 } else { 50 };
    measure::all(&device, [&l, &h, &g], runs, &mut report)?;
    report.memory(device_memory(&device)?);
    println!("all done after {:.1} s", start.elapsed().as_secs_f64());
    report.print();
    Ok(report.passed())
}

fn wishes() -> Result<Wishes> {
    let mut wishes = Wishes {
        quick: false,
        device: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => wishes.quick = true,
            "--device" => {
                let number = words.next().context("--device needs a number")?;
                wishes.device = number.parse().context("--device needs a number")?;
            }
            other => bail!("`{other}` is not known; gpu_check [--quick] [--device N]"),
        }
    }
    Ok(wishes)
}
