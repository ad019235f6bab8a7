//! Time and peak memory of full-size SDXL from a file, each in a process of its own, and of reading
//! the headers of a checkpoint of 7 GB. Linux only: the kernel keeps the figures.
//!
//! `cargo bench --bench memory [-- FOLDER]` writes two files into FOLDER (a temporary one otherwise):
//! the text part of an SDXL checkpoint in f16 (1.6 GB, random weights), and a sparse file that only
//! claims to be 7 GB long. A FOLDER that was named keeps them.
#![expect(clippy::print_stdout, reason = "a program that shows what it measures")]

mod files;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use sd_conditioner::candle_core::DType;
use sd_conditioner::weights::{Checkpoint, SyntheticSize};
use sd_conditioner::{Conditioner, Family};

const SEED: u64 = 73;
const POSITIVE: &str = "a lighthouse on a cliff at dusk, drifting fog";
const NEGATIVE: &str = "blurry, low quality";

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["random", dtype] => encode(None, dtype),
        ["file", dtype, path] => encode(Some(path), dtype),
        ["headers", path] => headers(path),
        _ => parent(arguments.iter().find(|one| !one.starts_with('-'))),
    }
}

/// Writes the files and starts itself once for each figure.
fn parent(folder: Option<&&str>) -> Result<(), Error> {
    let temporary = tempfile::tempdir()?;
    let folder = folder.map_or(temporary.path(), |folder| Path::new(*folder));
    let text = folder.join("sdxl-text-f16.safetensors");
    if !text.exists() {
        files::write(&text, SEED, true, false)?;
    }
    let whole = folder.join("sdxl-whole-sparse.safetensors");
    files::write(&whole, SEED, false, true)?;
    println!("| what | wall, s | CPU so far, s | peak memory so far, MiB |\n|---|---|---|---|");
    for dtype in ["f32", "f16", "bf16"] {
        start(&["random", dtype])?;
        start(&["file", dtype, &text.to_string_lossy()])?;
    }
    start(&["headers", &whole.to_string_lossy()])
}

fn start(arguments: &[&str]) -> Result<(), Error> {
    let status = Command::new(std::env::current_exe()?)
        .args(arguments)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{arguments:?}: {status}").into())
}

/// Loads, encodes one pair, and prints a row.
fn encode(path: Option<&str>, dtype: &str) -> Result<(), Error> {
    let start = Instant::now();
    let kept = match dtype {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let builder = Conditioner::builder().dtype(kept).output_dtype(DType::F32);
    let text = match path {
        Some(path) => builder.open(path)?,
        None => builder.random_weights(Family::Sdxl, SyntheticSize::Full, SEED)?,
    };
    let from = if path.is_some() {
        "an f16 file"
    } else {
        "random weights"
    };
    row(&format!("{from} -> {dtype}: load"), start)?;
    let start = Instant::now();
    text.encode_pair(POSITIVE, NEGATIVE)?;
    row(&format!("{from} -> {dtype}: one pair"), start)
}

/// What `inspect` does.
fn headers(path: &str) -> Result<(), Error> {
    let start = Instant::now();
    let summary = Checkpoint::open(path)?.summary();
    let (count, bytes) = (summary.n_tensors, fs::metadata(path)?.len());
    row(
        &format!("headers of {count} tensors, {:.1} GB", bytes as f64 / 1e9),
        start,
    )
}

/// Times since `start` and since the process began; the most memory so far.
fn row(what: &str, start: Instant) -> Result<(), Error> {
    let (wall, cpu, peak) = (start.elapsed().as_secs_f64(), cpu_seconds()?, peak_mib()?);
    println!("| {what} | {wall:.3} | {cpu:.3} | {peak:.0} |");
    Ok(())
}

/// CPU time of this process since it began, all threads, in steps of 10 ms.
fn cpu_seconds() -> Result<f64, Error> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] = [fields[11].parse::<f64>()?, fields[12].parse::<f64>()?];
    Ok((user + system) / 100.0)
}

fn peak_mib() -> Result<f64, Error> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
