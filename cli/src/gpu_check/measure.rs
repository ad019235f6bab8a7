//! Times from ids on the host to finished tensors on the card.

use std::time::Instant;

use anyhow::Result;
use sd_conditioner::candle_core::Device;
use sd_conditioner::encoder::{ClipText, Pooled, Readout, Window};
use sd_conditioner::kernels::{Options, choose_with};
use sd_conditioner::weights::EncoderId;

use super::Extent;
use super::encoders::{self, Loaded, window};
use super::report::Report;

/// A family's encoders, with what it reads from them.
type Towers<'a> = Vec<(&'a Loaded, Readout)>;

/// The ways whose times are shown, in the order of the report's column.
const WAYS: [fn(&Loaded) -> &ClipText; 5] = [
    |loaded| &loaded.plain,
    |loaded| &loaded.fused,
    |loaded| &loaded.library,
    |loaded| &loaded.own,
    |loaded| &loaded.captured,
];

/// A family: its encoders with what it reads from them, and the goals for few and for many windows.
struct Measured<'a> {
    name: &'static str,
    encoders: Towers<'a>,
    goals: [f64; 2],
}

/// Families whose encoders are there, as long as there is time.
pub(crate) fn all(
    device: &Device,
    towers: [Option<&Loaded>; 3],
    (extent, in_time): (&Extent, &dyn Fn() -> bool),
    report: &mut Report,
) {
    for (name, encoders, goals) in families(towers) {
        let Some(encoders) = encoders.filter(|_| in_time()) else {
            report.holds(&format!("{name}: not measured"), false);
            continue;
        };
        let family = Measured {
            name,
            encoders,
            goals,
        };
        let measured = measure(device, &family, extent, report);
        report.attempt(&format!("the times of {name}"), measured);
    }
}

/// The first calls of kernels that find nothing compiled or measured: what a program waits for when it begins.
/// They are compiled in the first, which a load does meanwhile; tried and captured in the second.
pub(crate) fn starting(device: &Device, loaded: &Loaded, report: &mut Report) -> Result<()> {
    let kernels = choose_with(device, &Options::default())?;
    let clip = loaded.plain.with_kernels(kernels.clone());
    let start = Instant::now();
    kernels.expect(clip.dtype());
    let compiled = start.elapsed().as_secs_f64() * 1e3;
    let chunks = [window(EncoderId::ClipL, 1)?, window(EncoderId::ClipL, 40)?];
    let windows = chunks.each_ref().map(Window::from);
    let readouts = [readout(loaded, 1, false, Pooled::Skip); 2];
    let mut times = vec![format!("{compiled:.0}")];
    for _ in 0..3 {
        device.synchronize()?;
        let start = Instant::now();
        let kept = clip.encode(&windows, &readouts)?;
        device.synchronize()?;
        times.push(format!("{:.1}", start.elapsed().as_secs_f64() * 1e3));
        drop(kept);
    }
    let what = "a process begins, f16, 2 windows: compile / first / second / third call";
    report.note(what, &format!("{} ms", times.join(" / ")));
    Ok(())
}

/// Every family's name, encoders if they are there, and goals.
fn families([l, h, g]: [Option<&Loaded>; 3]) -> [(&'static str, Option<Towers<'_>>, [f64; 2]); 3] {
    let sd1 = l.map(|l| vec![(l, readout(l, 0, true, Pooled::Skip))]);
    let sd2 = h.map(|h| vec![(h, readout(h, 1, true, Pooled::Skip))]);
    let sdxl = l.zip(g).map(|(l, g)| {
        vec![
            // The one that takes longer begins.
            (g, readout(g, 1, false, Pooled::Projected)),
            (l, readout(l, 1, false, Pooled::Skip)),
        ]
    });
    [
        ("SD1", sd1, [0.40, 3.5]),
        ("SD2", sd2, [0.70, 11.0]),
        ("SDXL", sdxl, [1.20, 27.0]),
    ]
}

/// The state after all but so many layers.
fn readout(loaded: &Loaded, before: usize, final_norm: bool, pooled: Pooled) -> Readout {
    let layers = loaded.plain.config().layers;
    Readout {
        layer: layers - before,
        final_norm,
        pooled,
        pooled_layer: layers,
    }
}

fn measure(
    device: &Device,
    family: &Measured<'_>,
    extent: &Extent,
    report: &mut Report,
) -> Result<()> {
    for (windows, goal) in extent.measured.into_iter().zip(family.goals) {
        let runs = if windows == 2 {
            extent.runs
        } else {
            extent.runs.div_ceil(3)
        };
        let mut times = [0.0; 5];
        for (time, way) in times.iter_mut().zip(WAYS) {
            *time = median(device, family, windows, (extent.warm_up, runs), way)?;
        }
        for (loaded, _) in &family.encoders {
            encoders::show(&loaded.captured);
        }
        let what = format!("{} f16, {windows} windows", family.name);
        report.times(&what, times, Some(goal));
    }
    Ok(())
}

/// Milliseconds: all encoders of a family one after the other, then one synchronisation.
fn median(
    device: &Device,
    family: &Measured<'_>,
    windows: usize,
    (warm_up, runs): (usize, usize),
    way: fn(&Loaded) -> &ClipText,
) -> Result<f64> {
    let chunks = (0..windows).map(|index| window(EncoderId::ClipL, index % 60));
    let chunks = chunks.collect::<Result<Vec<_>>>()?;
    let windows: Vec<Window<'_>> = chunks.iter().map(Window::from).collect();
    let mut times = Vec::with_capacity(runs);
    for run in 0..warm_up + runs {
        let time = run_once(device, family, &windows, way)?;
        if run >= warm_up {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Milliseconds of one run; what it gave is freed after they are taken.
fn run_once(
    device: &Device,
    family: &Measured<'_>,
    windows: &[Window<'_>],
    way: fn(&Loaded) -> &ClipText,
) -> Result<f64> {
    device.synchronize()?;
    let start = Instant::now();
    let mut kept = Vec::with_capacity(family.encoders.len());
    for (loaded, readout) in &family.encoders {
        kept.push(way(loaded).encode(windows, &vec![*readout; windows.len()])?);
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
