//! What was found, as one table.

use anyhow::{Result, bail};
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::kernels::DeviceMemory;

/// Rows of the table, and whether every check held.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
    failed: usize,
}

/// How far two tensors are apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    /// `max|a-b| / max|b|`
    pub(crate) max: f64,
    /// `rms(a-b) / rms(b)`
    pub(crate) rms: f64,
    /// The least over rows.
    pub(crate) cosine: f64,
}

impl Report {
    /// A check with its largest allowed distance.
    pub(crate) fn check(&mut self, what: &str, found: Distance, bar: f64) {
        let holds = found.max <= bar;
        let numbers = format!("{:.1e} {:.1e} {:.8}", found.max, found.rms, found.cosine);
        self.verdict(what, &numbers, &format!("max <= {bar:.1e}"), holds);
    }

    /// The same with bars for all three numbers: relative max, relative rms, cosine.
    pub(crate) fn check_all(&mut self, what: &str, found: Distance, bars: [f64; 3]) {
        let holds = found.max <= bars[0] && found.rms <= bars[1] && found.cosine >= bars[2];
        let numbers = format!("{:.1e} {:.1e} {:.8}", found.max, found.rms, found.cosine);
        let wanted = format!("{:.1e} {:.1e} {}", bars[0], bars[1], bars[2]);
        self.verdict(what, &numbers, &wanted, holds);
    }

    /// What was tried; an error is a check that failed, and does not end the run.
    pub(crate) fn attempt<T>(&mut self, what: &str, tried: Result<T>) -> Option<T> {
        tried
            .map_err(|error| {
                let text = format!("{error:#}");
                let line = text.lines().next().unwrap_or("an error").replace('|', "/");
                self.holds(&format!("{what}: {line}"), false);
            })
            .ok()
    }

    /// A check that is true or not.
    pub(crate) fn holds(&mut self, what: &str, holds: bool) {
        self.verdict(what, "", "", holds);
    }

    fn verdict(&mut self, what: &str, found: &str, wanted: &str, holds: bool) {
        self.failed += usize::from(!holds);
        if !holds {
            // At once, too: a run that is cut off has no table.
            println!("FAILED: {what}: {found}, wanted {wanted}");
        }
        let verdict = if holds { "ok" } else { "FAILED" };
        self.rows
            .push([what, found, wanted, verdict].map(str::to_owned));
    }

    /// Times in milliseconds: plain, fused; captured with the library's products, with our own, with
    /// whichever are faster.
    pub(crate) fn times(&mut self, what: &str, times: [f64; 5], goal: Option<f64>) {
        let times = times.map(|time| format!("{time:.3}"));
        let found = format!("{} ms", times.join(" / "));
        let goal = goal.map(|goal| format!("goal {goal} ms"));
        let verdict = "plain / fused / captured: library's, own, best products".to_owned();
        self.rows
            .push([what.to_owned(), found, goal.unwrap_or_default(), verdict]);
    }

    pub(crate) fn memory(&mut self, memory: Option<DeviceMemory>) {
        let mebibytes = |bytes: Option<u64>| {
            let size = bytes.map(|bytes| format!("{} MiB", bytes >> 20));
            size.unwrap_or_else(|| "unknown".to_owned())
        };
        let (used, peak) = (
            memory.and_then(|all| all.used),
            memory.and_then(|all| all.peak),
        );
        let found = format!("{} now, {} at most", mebibytes(used), mebibytes(peak));
        self.note("device memory", &found);
    }

    /// What was found where nothing is wanted.
    pub(crate) fn note(&mut self, what: &str, found: &str) {
        self.rows.push([what, found, "", ""].map(str::to_owned));
    }

    pub(crate) fn passed(&self) -> bool {
        self.failed == 0
    }

    pub(crate) fn print(&self) {
        println!("| what | found (max, rms, cosine) | wanted | |");
        println!("|---|---|---|---|");
        for [what, found, wanted, verdict] in &self.rows {
            println!("| {what} | {found} | {wanted} | {verdict} |");
        }
        let failed = self.failed;
        println!(
            "| all checks | {failed} failed | 0 failed | {} |",
            if failed == 0 { "ok" } else { "FAILED" }
        );
    }
}

/// How far `a` is from `b`, wherever they are. A value that is no number is infinitely far.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> Result<Distance> {
    if a.dims() != b.dims() {
        bail!("shapes {:?} and {:?}", a.dims(), b.dims());
    }
    let width = b.dims().last().copied().unwrap_or(1);
    let (a, b) = (values(a)?, values(b)?);
    let finite = a.iter().all(|value| value.is_finite());
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let rows = a.chunks(width).zip(b.chunks(width));
    let cosine = rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    Ok(Distance {
        max: if finite {
            largest(&differences) / largest(&b)
        } else {
            f64::INFINITY
        },
        rms: (dot(&differences, &differences) / dot(&b, &b)).sqrt(),
        cosine: cosine.fold(1.0, f64::min),
    })
}

/// Equal bit for bit.
pub(crate) fn same(a: &Tensor, b: &Tensor) -> Result<bool> {
    let values = |tensor: &Tensor| -> Result<Vec<f32>> {
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(tensor.flatten_all()?.to_vec1()?)
    };
    let (a, b) = (values(a)?, values(b)?);
    Ok(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()))
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(tensor.flatten_all()?.to_vec1::<f64>()?)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().map(|value| value.abs()).fold(0.0, f64::max)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
