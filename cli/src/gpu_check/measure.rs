//! Times from ids on the host to finished tensors on the card.

use std::fmt::{self, Display, Formatter};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::encoder::{ClipText, Pooled, Readout, Window};
use sd_conditioner::kernels::{Follow, Options, choose_with};
use sd_conditioner::weights::EncoderId;

use super::encoders::{show, window};
use super::parts::Setting;
use super::report::Report;
use super::ways::{Tower, Way};

/// A family whose times are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Sd1,
    Sd2,
    Sdxl,
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Sd1 => "sd1",
            Name::Sd2 => "sd2",
            Name::Sdxl => "sdxl",
        })
    }
}

/// Encoders in some way, the one that takes longest first.
type Encoders = Vec<(ClipText, Readout)>;

/// What a family reads from an encoder: the state after all but so many layers, and a pooled vector.
struct Read {
    id: EncoderId,
    before: usize,
    final_norm: bool,
    pooled: Pooled,
}

impl Name {
    fn reads(self) -> Vec<Read> {
        let read = |id, before, final_norm, pooled| Read {
            id,
            before,
            final_norm,
            pooled,
        };
        match self {
            Name::Sd1 => vec![read(EncoderId::ClipL, 0, true, Pooled::Skip)],
            Name::Sd2 => vec![read(EncoderId::OpenClipH, 1, true, Pooled::Skip)],
            Name::Sdxl => vec![
                // The one that takes longer begins.
                read(EncoderId::OpenClipG, 1, false, Pooled::Projected),
                read(EncoderId::ClipL, 1, false, Pooled::Skip),
            ],
        }
    }

    /// Milliseconds for few and for many windows.
    const fn goals(self) -> [f64; 2] {
        match self {
            Name::Sd1 => [0.40, 3.5],
            Name::Sd2 => [0.70, 11.0],
            Name::Sdxl => [1.20, 27.0],
        }
    }
}

impl Read {
    fn of(&self, clip: &ClipText) -> Readout {
        let layers = clip.config().layers;
        Readout {
            layer: layers - self.before,
            final_norm: self.final_norm,
            pooled: self.pooled,
            pooled_layer: layers,
        }
    }

    fn load<'a>(&self, setting: &'a Setting) -> Result<Tower<'a>> {
        let what = (self.id, setting.extent.size, DType::F16);
        Tower::load(what, &setting.device, setting)
    }
}

/// The first calls of kernels that find nothing compiled or measured: what a program waits for when it begins.
/// They are compiled in the first, which a load does meanwhile; tried and captured in the second.
pub(crate) fn starting(setting: &Setting, report: &mut Report) -> Result<()> {
    let device = &setting.device;
    let reads = Name::Sdxl.reads();
    let plain = reads[0].load(setting)?.plain;
    let kernels = choose_with(device, &Options::default())?;
    let clip = plain.with_kernels(kernels.clone());
    let start = Instant::now();
    // With as much of a stack as a thread of rayon's has, for that is where it is compiled otherwise.
    thread::scope(|threads| threads.spawn(|| kernels.expect(clip.dtype())).join())
        .map_err(|_| anyhow!("compiling panicked"))?;
    let compiled = start.elapsed().as_secs_f64() * 1e3;
    let chunks = [window(EncoderId::ClipL, 1)?, window(EncoderId::ClipL, 40)?];
    let windows = chunks.each_ref().map(Window::from);
    let encoders = vec![(clip, reads[0].of(&plain))];
    let mut times = vec![format!("{compiled:.0}")];
    for _ in 0..3 {
        let time = run_once(device, &encoders, &windows)?;
        times.push(format!("{time:.1}"));
    }
    let what = "a process begins, f16, 2 windows: compile / first / second / third call";
    report.note(what, &format!("{} ms", times.join(" / ")));
    Ok(())
}

/// The encoders of a family, each with what is read of it.
struct Towers<'a> {
    reads: Vec<Read>,
    loaded: Vec<Tower<'a>>,
    setting: &'a Setting,
}

impl<'a> Towers<'a> {
    fn load(name: Name, setting: &'a Setting) -> Result<Towers<'a>> {
        let reads = name.reads();
        let loaded = reads.iter().map(|read| read.load(setting));
        let loaded = loaded.collect::<Result<_>>()?;
        Ok(Towers {
            reads,
            loaded,
            setting,
        })
    }

    /// In a way that `made` gives each of them.
    fn each(&self, made: impl Fn(&Tower<'_>) -> Result<ClipText>) -> Result<Encoders> {
        let both = self.reads.iter().zip(&self.loaded);
        let each = both.map(|(read, tower)| Ok((made(tower)?, read.of(&tower.plain))));
        each.collect()
    }

    /// Pairs of windows in each manner in which kernels may follow each other. What is chosen by itself is chosen for
    /// each encoder alone; here both of a family are under way.
    fn following(&self, name: Name, report: &mut Report) {
        let windows = self.setting.extent.measured[0];
        for follow in [
            Follow::Plain,
            Follow::Ahead,
            Follow::Overlapping,
            Follow::Both,
        ] {
            let encoders = self.each(|tower| tower.following(follow));
            let time = encoders.and_then(|encoders| median(self.setting, &encoders, windows));
            let what = format!("{name} f16, {windows} windows, fastest products, {follow:?}");
            if let Some(time) = report.attempt(&what, time) {
                report.note(&what, &format!("{time:.3} ms"));
            }
        }
    }
}

/// The times of a family in all ways, for few and for many windows.
pub(crate) fn family(name: Name, setting: &Setting, report: &mut Report) -> Result<()> {
    let towers = Towers::load(name, setting)?;
    let mut times = [(); 2].map(|()| Vec::new());
    for way in Way::ALL {
        if way == Way::Own && !setting.own {
            for times in &mut times {
                times.push(None);
            }
            continue;
        }
        let encoders = towers.each(|tower| tower.on(way))?;
        for (place, windows) in setting.extent.measured.into_iter().enumerate() {
            let time = median(setting, &encoders, windows);
            let what = format!("{name} f16, {windows} windows");
            times[place].push(report.attempt(&format!("{what}, {}", way.name()), time));
            let mut shown = times[place].clone();
            shown.resize(Way::ALL.len(), None);
            report.times(&what, &shown, name.goals()[place]);
        }
        if way == Way::Fastest {
            for (clip, _) in &encoders {
                show(clip);
            }
        }
    }
    towers.following(name, report);
    Ok(())
}

/// Milliseconds: all encoders of a family one after the other, then one synchronisation.
fn median(setting: &Setting, encoders: &Encoders, windows: usize) -> Result<f64> {
    let extent = &setting.extent;
    let runs = if windows == 2 {
        extent.runs
    } else {
        extent.runs.div_ceil(3)
    };
    let chunks = (0..windows).map(|index| window(EncoderId::ClipL, index % 60));
    let chunks = chunks.collect::<Result<Vec<_>>>()?;
    let windows: Vec<Window<'_>> = chunks.iter().map(Window::from).collect();
    let mut times = Vec::with_capacity(runs);
    for run in 0..extent.warm_up + runs {
        let time = run_once(&setting.device, encoders, &windows)?;
        if run >= extent.warm_up {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Milliseconds of one run; what it gave is freed after they are taken.
fn run_once(device: &Device, encoders: &Encoders, windows: &[Window<'_>]) -> Result<f64> {
    device.synchronize()?;
    let start = Instant::now();
    let mut kept = Vec::with_capacity(encoders.len());
    for (clip, readout) in encoders {
        kept.push(clip.encode(windows, &vec![*readout; windows.len()])?);
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
