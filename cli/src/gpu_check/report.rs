//! What was found, as one table.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, bail};
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::kernels::DeviceMemory;

use super::ways::Way;

/// One row of the table: what, what was found, what is wanted, the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row([String; 4]);

impl Row {
    fn new(cells: [&str; 4]) -> Row {
        Row(cells.map(|cell| cell.replace('|', "/").replace('\n', " ")))
    }

    /// The row that a line is, if it is one.
    pub(crate) fn read(line: &str) -> Option<Row> {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<String> = cells.split(" | ").map(str::to_owned).collect();
        cells.try_into().ok().map(Row)
    }

    fn failed(&self) -> bool {
        self.0[3] == FAILED
    }

    /// What held, then what did not, then what was measured: whoever sees the last lines only sees most.
    fn rank(&self) -> usize {
        match self.0[3].as_str() {
            OK => 0,
            FAILED => 1,
            _ => 2,
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [what, found, wanted, verdict] = &self.0;
        write!(f, "| {what} | {found} | {wanted} | {verdict} |")
    }
}

const OK: &str = "ok";
const FAILED: &str = "FAILED";

/// Rows of the table.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// Each row is written at once, for the process that waits for it.
    tells: bool,
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
    /// For a part: its rows are heard by the process that began it.
    pub(crate) fn telling() -> Report {
        Report {
            tells: true,
            ..Report::default()
        }
    }

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
                let line = text.lines().next().unwrap_or("an error");
                self.holds(&format!("{what}: {line}"), false);
            })
            .ok()
    }

    /// A check that is true or not.
    pub(crate) fn holds(&mut self, what: &str, holds: bool) {
        self.verdict(what, "", "", holds);
    }

    fn verdict(&mut self, what: &str, found: &str, wanted: &str, holds: bool) {
        let verdict = if holds { OK } else { FAILED };
        self.take(Row::new([what, found, wanted, verdict]));
    }

    /// One more row, in place of the one of the same name.
    pub(crate) fn take(&mut self, row: Row) {
        if self.tells {
            println!("{row}");
        } else if row.rank() > 0 {
            // What failed and what was measured, at once, too: a run that is cut off has no table.
            println!("{row}");
        }
        match self.rows.iter_mut().find(|known| known.0[0] == row.0[0]) {
            Some(known) if known.failed() && !row.failed() => {}
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
    }

    /// Milliseconds of each way, those that come later still open.
    pub(crate) fn times(&mut self, what: &str, times: &[Option<f64>], goal: f64) {
        let shown = |time: &Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.3}"));
        let times: Vec<String> = times.iter().map(shown).collect();
        let found = format!("{} ms", times.join(" / "));
        let ways = Way::ALL.map(Way::name).join(" / ");
        self.take(Row::new([what, &found, &format!("goal {goal} ms"), &ways]));
    }

    pub(crate) fn memory(&mut self, what: &str, memory: Option<DeviceMemory>) {
        let mebibytes = |bytes: Option<u64>| {
            let size = bytes.map(|bytes| format!("{} MiB", bytes >> 20));
            size.unwrap_or_else(|| "unknown".to_owned())
        };
        let (used, peak) = (
            memory.and_then(|all| all.used),
            memory.and_then(|all| all.peak),
        );
        let found = format!("{} now, {} at most", mebibytes(used), mebibytes(peak));
        self.note(&format!("{what}: device memory"), &found);
    }

    /// What was found where nothing is wanted.
    pub(crate) fn note(&mut self, what: &str, found: &str) {
        self.take(Row::new([what, found, "", ""]));
    }

    pub(crate) fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.failed()).count()
    }

    pub(crate) fn passed(&self) -> bool {
        self.failed() == 0
    }

    pub(crate) fn print(&self) {
        println!("| what | found (max, rms, cosine) | wanted | |");
        println!("|---|---|---|---|");
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.rank());
        for row in rows {
            println!("{row}");
        }
        let (failed, checks) = (self.failed(), self.rows.iter().filter(|row| row.rank() < 2));
        let found = format!("{failed} of {} failed", checks.count());
        let verdict = if failed == 0 { OK } else { FAILED };
        println!("| all checks | {found} | 0 failed | {verdict} |");
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
