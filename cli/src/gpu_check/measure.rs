//! Times from ids on the host to finished tensors on the card.

use std::time::Instant;

use anyhow::Result;
use sd_conditioner::candle_core::Device;
use sd_conditioner::encoder::{ClipText, Pooled, Readout, Window};
use sd_conditioner::weights::EncoderId;

use super::encoders::{Loaded, window};
use super::report::Report;

/// Runs before the first that counts: modules are loaded, products tuned, graphs captured.
const WARM_UP: usize = 5;

/// A family: its encoders with what it reads from them, and the goals for 2 and for 128 windows.
struct Measured<'a> {
    name: &'a str,
    encoders: Vec<(&'a Loaded, Readout)>,
    goals: [f64; 2],
}

pub(crate) fn all(
    device: &Device,
    [l, h, g]: [&Loaded; 3],
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let at = |loaded: &Loaded, layer: usize, final_norm, pooled| {
        let layers = loaded.plain.config().layers;
        Readout {
            layer: layers - layer,
            final_norm,
            pooled,
            pooled_layer: layers,
        }
    };
    let families = [
        Measured {
            name: "SD1",
            encoders: vec![(l, at(l, 0, true, Pooled::Skip))],
            goals: [0.40, 3.5],
        },
        Measured {
            name: "SD2",
            encoders: vec![(h, at(h, 1, true, Pooled::Skip))],
            goals: [0.70, 11.0],
        },
        Measured {
            name: "SDXL",
            encoders: vec![
                (l, at(l, 1, false, Pooled::Skip)),
                (g, at(g, 1, false, Pooled::Projected)),
            ],
            goals: [1.20, 27.0],
        },
    ];
    for family in &families {
        for (windows, goal) in [2, 128].into_iter().zip(family.goals) {
            let runs = if windows == 2 { runs } else { runs.div_ceil(3) };
            let ways: [fn(&Loaded) -> &ClipText; 3] = [
                |loaded| &loaded.plain,
                |loaded| &loaded.fused,
                |loaded| &loaded.captured,
            ];
            let mut times = [0.0; 3];
            for (time, way) in times.iter_mut().zip(ways) {
                *time = median(device, family, windows, runs, way)?;
            }
            report.times(
                &format!("{} f16, {windows} windows", family.name),
                times,
                Some(goal),
            );
        }
    }
    Ok(())
}

/// Milliseconds: all encoders of a family one after the other, then one synchronisation.
fn median(
    device: &Device,
    family: &Measured<'_>,
    windows: usize,
    runs: usize,
    way: fn(&Loaded) -> &ClipText,
) -> Result<f64> {
    let chunks = (0..windows).map(|index| window(EncoderId::ClipL, index % 60));
    let chunks = chunks.collect::<Result<Vec<_>>>()?;
    let windows: Vec<Window<'_>> = chunks.iter().map(Window::from).collect();
    let mut times = Vec::with_capacity(runs);
    for run in 0..WARM_UP + runs {
        device.synchronize()?;
        let start = Instant::now();
        let mut kept = Vec::with_capacity(family.encoders.len());
        for (loaded, readout) in &family.encoders {
            kept.push(way(loaded).encode(&windows, &vec![*readout; windows.len()])?);
        }
        device.synchronize()?;
        if run >= WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        drop(kept);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
