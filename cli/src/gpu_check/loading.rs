//! From a file to tensors on the card: the ways values take, and whole loads beside reading alone.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sd_conditioner::Conditioner;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::kernels::{Options, choose};
use sd_conditioner::weights::{
    Arrangement, Conversion, EncoderId, Encoders, Synthetic, SyntheticSize,
};

use crate::measured_folder;
use crate::report::Report;

const RUNS: usize = 5;

/// What is read at once where nothing is kept, as `dd bs=1M` does.
const BLOCK: usize = 1 << 20;

/// Values that are sent: 256 MiB of f32 at full size.
fn n_values(size: SyntheticSize) -> usize {
    match size {
        SyntheticSize::Full => 1 << 26,
        SyntheticSize::Tiny => 5_000_001,
    }
}

/// All of it, as long as there is time.
pub(crate) fn all(
    device: &Device,
    (size, in_time): (SyntheticSize, &dyn Fn() -> bool),
    report: &mut Report,
) {
    let steps: [(&str, fn(SyntheticSize, &Device, &mut Report) -> Result<()>); 2] = [
        ("values sent in parts", sending),
        ("a load from a file", whole),
    ];
    for (what, step) in steps {
        if in_time() {
            let done = step(size, device, report);
            report.attempt(what, done);
        } else {
            report.note(what, "not measured");
        }
    }
}

/// Values sent in parts arrive, and how fast they and others do.
fn sending(size: SyntheticSize, device: &Device, report: &mut Report) -> Result<()> {
    let Some(uploads) = choose(device)?.uploads() else {
        report.note("values sent in parts", "this device has no way of its own");
        return Ok(());
    };
    let n_values = n_values(size);
    let values = (0..n_values).map(|place| (place % 8_388_593) as f32);
    let values: Vec<f32> = values.collect();
    let (mut times, mut all_there) = ([Vec::new(), Vec::new()], true);
    let here = Tensor::from_slice(&values, n_values, &Device::Cpu)?;
    for _ in 0..RUNS {
        let start = Instant::now();
        let sent = uploads.upload(DType::F32, n_values, &mut |first, room| {
            let room = room.chunks_exact_mut(4);
            for (to, from) in room.zip(&values[first..]) {
                to.copy_from_slice(&from.to_ne_bytes());
            }
            Ok(())
        })?;
        device.synchronize()?;
        times[0].push(start.elapsed().as_secs_f64());
        all_there &= sent.to_vec1::<f32>()? == values;
        let start = Instant::now();
        let _there = here.to_device(device)?;
        device.synchronize()?;
        times[1].push(start.elapsed().as_secs_f64());
    }
    report.holds("values sent in parts are there", all_there);
    let rates = times.map(|times| (4 * n_values) as f64 / 1e9 / median(times));
    let found = format!("{:.1} / {:.1} GB/s", rates[0], rates[1]);
    report.note(
        "to the card, in parts (filled by one thread) / at once",
        &found,
    );
    Ok(())
}

/// The encoders of SDXL in f16, from a file in the page cache.
fn whole(size: SyntheticSize, device: &Device, report: &mut Report) -> Result<()> {
    let path = written(size)?;
    let mut columns: [Vec<f64>; 3] = Default::default();
    for _ in 0..RUNS {
        let read = read_alone(&path)?;
        let [load, first] = loaded(&path, device)?;
        for (column, time) in columns.iter_mut().zip([read, load, first]) {
            column.push(1e3 * time);
        }
    }
    let [read, load, first] = columns.map(median);
    let what = "a file of SDXL's encoders, f16: read alone / loaded / first pair";
    report.note(what, &format!("{read:.1} / {load:.1} / {first:.1} ms"));
    let ratios = [load / read, (load + first) / read];
    let found = format!("{:.2} / {:.2}", ratios[0], ratios[1]);
    report.note(
        "loaded, and loaded with the first pair, against reading alone (goal 1.3)",
        &found,
    );
    Ok(())
}

/// The file, in the folder that is removed in the end.
fn written(size: SyntheticSize) -> Result<PathBuf> {
    let [l, g] = [EncoderId::ClipL, EncoderId::OpenClipG];
    // Published files have no projection of the first.
    let first = Synthetic::new(l, size, 73).without_projection();
    let second = Synthetic::new(g, size, 73);
    let encoders: Encoders = vec![(l, Box::new(first)), (g, Box::new(second))];
    let path = measured_folder().join("sdxl.safetensors");
    let conversion = Conversion::to(Arrangement::SingleFile).dtype(DType::F16);
    let report = conversion.write_encoders(encoders, &path, &mut |_, _, _| ())?;
    anyhow::ensure!(report.files == [path.clone()], "other files were written");
    Ok(path)
}

/// Seconds for all bytes, none of them kept.
fn read_alone(path: &Path) -> Result<f64> {
    let mut block = vec![0; BLOCK];
    let start = Instant::now();
    let mut file = File::open(path).context("the file is gone")?;
    while file.read(&mut block)? > 0 {}
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds until the encoders are loaded, and from then until the first pair is there.
fn loaded(path: &Path, device: &Device) -> Result<[f64; 2]> {
    let options = Options {
        cache_dir: Some(measured_folder()),
        ..Options::default()
    };
    let builder = Conditioner::builder().device(device.clone());
    let builder = builder.dtype(DType::F16).kernel_options(options);
    let start = Instant::now();
    let text = builder.cache(CacheOptions::OFF).open(path)?;
    let loaded = start.elapsed().as_secs_f64();
    let _pair = text.encode_pair("a lighthouse on a cliff at dusk", "blurry")?;
    device.synchronize()?;
    Ok([loaded, start.elapsed().as_secs_f64() - loaded])
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
