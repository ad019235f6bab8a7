//! Time from a whole SDXL checkpoint (7 GB, in the page cache) to loaded encoders and to the first
//! conditioning, beside `dd` reading the same bytes of the encoders. Linux only.
//!
//! `cargo bench --bench loading [-- FOLDER]` writes the file into FOLDER (a temporary one otherwise):
//! encoders of random weights in f16 (1.6 GB), and a U-Net and a VAE that are holes. With `--features cuda` and
//! `-- --cuda` the encoders are loaded to the first card, which is open by then; without it they are copied, and mapped
//! where that changes no bit. Each load is a process of its own; `dd` runs before each, once with a buffer of 1 MiB that it uses again and again,
//! and once with one as large as all it reads, which is what keeping the bytes costs at least.
#![expect(clippy::print_stdout, reason = "a program that shows what it measures")]
#![expect(unsafe_code, reason = "files are mapped by the word of who wrote them")]

mod files;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use sd_conditioner::Conditioner;
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::weights::Unchanging;

const SEED: u64 = 73;
const RUNS: usize = 7;
/// What `dd` reads at once.
const BLOCK: u64 = 1 << 20;
const DTYPES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["load", way, dtype, path] = arguments[..] {
        return load(path, dtype, way);
    }
    let on_card = arguments.contains(&"--cuda");
    let folder = arguments.iter().find(|one| !one.starts_with('-'));
    parent(
        folder,
        if on_card {
            &["cuda"]
        } else {
            &["cpu", "mapped"]
        },
    )
}

/// In this process: seconds to load, seconds to the first pair, peak memory in MiB.
fn load(path: &str, dtype: &str, way: &str) -> Result<(), Error> {
    let known = DTYPES.into_iter().find(|one| one.as_str() == dtype);
    let device = match way {
        "cuda" => Device::new_cuda_with_stream(0)?,
        _ => Device::Cpu,
    };
    let builder = Conditioner::builder().device(device.clone());
    let mut builder = builder.dtype(known.ok_or("no such type")?);
    if way == "mapped" {
        // SAFETY: the file is this program's own, and whole.
        builder = builder.map_files(unsafe { Unchanging::promised() });
    }
    let start = Instant::now();
    let text = builder.open(path)?;
    let loaded = start.elapsed().as_secs_f64();
    let _pair = text.encode_pair("a lighthouse on a cliff at dusk", "blurry")?;
    device.synchronize()?;
    let first = start.elapsed().as_secs_f64() - loaded;
    println!("{loaded} {first} {}", peak_mib()?);
    Ok(())
}

fn parent(folder: Option<&&str>, ways: &[&str]) -> Result<(), Error> {
    let temporary = tempfile::tempdir()?;
    let folder = folder.map_or(temporary.path(), |folder| Path::new(*folder));
    let path = folder.join("sdxl-whole.safetensors");
    let text = files::write(&path, SEED, true, true)?;
    let (n_bytes, length) = (text.end - text.start, fs::metadata(&path)?.len());
    println!(
        "{:.2} GB of encoders in a file of {:.2} GB; medians of {RUNS} (least), seconds\n",
        n_bytes as f64 / 1e9,
        length as f64 / 1e9
    );
    println!("| kept in | dd | dd, kept | load | load / dd | first pair | peak memory, MiB |");
    println!("|---|---|---|---|---|---|---|");
    dd(&path, &text, BLOCK)?;
    for dtype in DTYPES {
        for way in ways {
            row(&path, &text, (dtype, way))?;
        }
    }
    Ok(())
}

fn row(path: &Path, text: &Range<u64>, (dtype, way): (DType, &str)) -> Result<(), Error> {
    let mut columns: [Vec<f64>; 5] = Default::default();
    for _ in 0..RUNS {
        columns[0].push(dd(path, text, BLOCK)?);
        columns[1].push(dd(path, text, text.end - text.start)?);
        for (column, value) in columns[2..].iter_mut().zip(child(path, dtype, way)?) {
            column.push(value);
        }
    }
    let columns = columns.map(|mut column| {
        column.sort_by(f64::total_cmp);
        [column[RUNS / 2], column[0]]
    });
    let [dd, whole, load, first, peak] = columns;
    let ratio = [load[0] / dd[0], load[1] / dd[1]];
    let seconds = [shown(dd, 3), shown(whole, 3), shown(load, 3)].join(" | ");
    let (ratio, first, peak) = (shown(ratio, 2), shown(first, 2), peak[0]);
    let dtype = dtype.as_str();
    let mapped = if way == "mapped" { ", mapped" } else { "" };
    println!("| {dtype}{mapped} | {seconds} | {ratio} | {first} | {peak:.0} |");
    Ok(())
}

/// The median, and the least in brackets.
fn shown([median, least]: [f64; 2], digits: usize) -> String {
    format!("{median:.digits$} ({least:.digits$})")
}

/// Seconds that `dd` takes for the bytes of the encoders, so many at once.
fn dd(path: &Path, text: &Range<u64>, block: u64) -> Result<f64, Error> {
    let start = Instant::now();
    let ran = Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["of=/dev/null", "iflag=skip_bytes,count_bytes"])
        .arg(format!("bs={block}"))
        .arg(format!("skip={}", text.start))
        .arg(format!("count={}", text.end - text.start))
        .output()?;
    let seconds = start.elapsed().as_secs_f64();
    if ran.status.success() {
        return Ok(seconds);
    }
    Err(String::from_utf8_lossy(&ran.stderr).into())
}

fn child(path: &Path, dtype: DType, way: &str) -> Result<Vec<f64>, Error> {
    let ran = Command::new(std::env::current_exe()?)
        .args(["load", way, dtype.as_str()])
        .arg(path)
        .output()?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into());
    }
    let said = String::from_utf8(ran.stdout)?;
    let numbers = said.split_whitespace().map(str::parse);
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn peak_mib() -> Result<f64, Error> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
