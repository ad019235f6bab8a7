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
    Arrangement, Conversion, EncoderId, Encoders, Synthetic, SyntheticSize, Transfers,
};

use crate::parts::Setting;
use crate::report::Report;

const RUNS: usize = 5;

/// What is read at once where nothing is kept, as `dd bs=1M` does.
const BLOCK: usize = 1 << 20;

/// Values that are sent: 256 MiB of f32 at full size.
fn n_values(size: SyntheticSize) -> usize {
    match size {
        SyntheticSize::Tiny => 5_000_001,
        _ => 1 << 26,
    }
}

pub(crate) fn all(setting: &Setting, report: &mut Report) -> Result<()> {
    let sent = sending(setting, report);
    report.attempt("values in parts", sent);
    whole(setting, report)
}

/// Values sent in parts arrive and come back, and how fast they and others do.
fn sending(setting: &Setting, report: &mut Report) -> Result<()> {
    let device = &setting.device;
    let Some(way) = choose(device)?.transfers() else {
        report.note("values in parts", "this device has no way of its own");
        return Ok(());
    };
    let n_values = n_values(setting.extent.size);
    let values = (0..n_values).map(|place| (place % 8_388_593) as f32);
    let values: Vec<f32> = values.collect();
    let here = Tensor::from_slice(&values, n_values, &Device::Cpu)?;
    let (mut times, mut right) = ([(); 3].map(|()| Vec::new()), true);
    for _ in 0..RUNS {
        let start = Instant::now();
        let there = sent(&*way, &values)?;
        device.synchronize()?;
        times[0].push(start.elapsed().as_secs_f64());
        right &= there.to_vec1::<f32>()? == values;
        let start = Instant::now();
        right &= fetched(&*way, &there, &values)?;
        times[1].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        drop(here.to_device(device)?);
        device.synchronize()?;
        times[2].push(start.elapsed().as_secs_f64());
    }
    report.holds("values in parts are there, and come back", right);
    let rates = times.map(|times| (4 * n_values) as f64 / 1e9 / median(times));
    let rates = rates.map(|rate| format!("{rate:.1}")).join(" / ");
    let what = "one thread: values in parts to the card / from it / to it at once";
    report.note(what, &format!("{rates} GB/s"));
    Ok(())
}

fn sent(way: &dyn Transfers, values: &[f32]) -> Result<Tensor> {
    let sent = way.upload(DType::F32, values.len(), &mut |first, room| {
        let room = room.chunks_exact_mut(4);
        for (to, from) in room.zip(&values[first..]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        Ok(())
    });
    Ok(sent?)
}

/// True if they are these.
fn fetched(way: &dyn Transfers, there: &Tensor, values: &[f32]) -> Result<bool> {
    let (mut same, mut seen) = (true, 0);
    way.download(there, &mut |first, part| {
        let both = values[first..].iter().zip(part.chunks_exact(4));
        for (here, there) in both {
            same &= here.to_ne_bytes() == there;
            seen += 1;
        }
        Ok(())
    })?;
    Ok(same && seen == values.len())
}

/// The encoders of SDXL in f16, from a file in the page cache.
fn whole(setting: &Setting, report: &mut Report) -> Result<()> {
    let path = written(setting)?;
    let measured = repeated(&path, setting);
    // Whatever failed: it is large, and nobody else wants it.
    std::fs::remove_file(&path).context("the file of encoders cannot be removed")?;
    let [read, load, first, off, back] = measured?;
    let what = "a file of SDXL's encoders, f16: read alone / loaded / first pair";
    report.note(what, &format!("{read:.1} / {load:.1} / {first:.1} ms"));
    let what = "loaded, and loaded with the first pair, against reading alone (goal 1.3)";
    let ratios = [load / read, (load + first) / read];
    report.note(what, &format!("{:.2} / {:.2}", ratios[0], ratios[1]));
    report.note(
        "the same encoders: offload / load_to",
        &format!("{off:.1} / {back:.1} ms"),
    );
    Ok(())
}

/// Medians in milliseconds: reading alone, and what [`loaded`] measures.
fn repeated(path: &Path, setting: &Setting) -> Result<[f64; 5]> {
    let mut columns = [(); 5].map(|()| Vec::new());
    for _ in 0..RUNS {
        let read = [read_alone(path)?].into_iter();
        let times = read.chain(loaded(path, setting)?);
        for (column, time) in columns.iter_mut().zip(times) {
            column.push(1e3 * time);
        }
    }
    Ok(columns.map(median))
}

/// The file, in this run's folder.
fn written(setting: &Setting) -> Result<PathBuf> {
    let size = setting.extent.size;
    let [l, g] = [EncoderId::ClipL, EncoderId::OpenClipG];
    // Published files have no projection of the first.
    let first = Synthetic::new(l, size, 73).without_projection();
    let second = Synthetic::new(g, size, 73);
    let encoders: Encoders = vec![(l, Box::new(first)), (g, Box::new(second))];
    let path = setting.folder.join("sdxl.safetensors");
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

/// Seconds until the encoders are loaded, and from then until the first pair is there; to move them to the
/// CPU, and back.
fn loaded(path: &Path, setting: &Setting) -> Result<[f64; 4]> {
    let device = &setting.device;
    let options = Options {
        cache_dir: Some(setting.folder.clone()),
        ..Options::default()
    };
    let builder = Conditioner::builder().device(device.clone());
    let builder = builder.dtype(DType::F16).kernel_options(options);
    let mut start = Instant::now();
    let mut since = || -> Result<f64> {
        device.synchronize()?;
        let seconds = start.elapsed().as_secs_f64();
        start = Instant::now();
        Ok(seconds)
    };
    let text = builder.cache(CacheOptions::OFF).open(path)?;
    let loaded = since()?;
    let _pair = text.encode_pair("a lighthouse on a cliff at dusk", "blurry")?;
    let first = since()?;
    text.offload()?;
    let off = since()?;
    text.load_to(device)?;
    Ok([loaded, first, off, since()?])
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
