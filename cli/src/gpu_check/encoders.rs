//! Whole encoders: fused and captured against plain f32, in every type.

use anyhow::{Context, Result};
use sd_conditioner::Family;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::chunks_for;
use sd_conditioner::encoder::{ClipConfig, ClipText, Encoded, Pooled, Readout, Window};
use sd_conditioner::tokens::Chunk;
use sd_conditioner::weights::{EncoderId, SyntheticSize};

use super::following;
use super::parts::Setting;
use super::report::{Report, distance, same};
use super::ways::{Tower, Way};

/// Eight windows from nothing to full.
const WORDS: [usize; 8] = [0, 1, 5, 9, 17, 33, 60, 75];

/// The state before the last layer, and the pooled vector, of all windows.
pub(crate) type States = [Tensor; 2];

/// Windows, and what plain f32 gives for them.
struct Exact {
    windows: Vec<Chunk>,
    states: States,
}

/// What f16 and bf16 may differ from f32: what torch 2.11 in the same type differs on one H200, with
/// weights of the same rule. Relative max, relative rms, cosine; hidden states and pooled vectors.
const fn bars(id: EncoderId, dtype: DType) -> [[f64; 3]; 2] {
    match (id, dtype) {
        (_, DType::F32) => [[1e-4, 5e-5, 0.999_999]; 2],
        (EncoderId::ClipL, DType::F16) => {
            [[2.3e-3, 1.7e-3, 0.999_997_5], [1.6e-3, 1.8e-3, 0.999_997_5]]
        }
        (EncoderId::OpenClipH, DType::F16) => {
            [[2.6e-3, 1.9e-3, 0.999_997_6], [1.7e-3, 1.9e-3, 0.999_997_6]]
        }
        (_, DType::F16) => [[3.3e-3, 2e-3, 0.999_997_6], [2e-3, 2e-3, 0.999_997_6]],
        (EncoderId::ClipL, _) => [[1.9e-2, 1.4e-2, 0.999_85], [1.4e-2, 1.5e-2, 0.999_85]],
        (EncoderId::OpenClipH, _) => [[2e-2, 1.5e-2, 0.999_84], [1.8e-2, 1.5e-2, 0.999_84]],
        (_, _) => [[2.6e-2, 1.6e-2, 0.999_84], [1.5e-2, 1.6e-2, 0.999_84]],
    }
}

/// A small encoder's rounding averages over fewer channels: half again as much is allowed. Errors are
/// near 0, cosines near 1.
fn widened(bar: f64, config: &ClipConfig) -> f64 {
    match (config.width < 768, bar < 0.5) {
        (false, _) => bar,
        (true, true) => 1.5 * bar,
        (true, false) => 1.0 - 1.5 * (1.0 - bar),
    }
}

/// Checks one encoder in all types.
pub(crate) fn check(id: EncoderId, setting: &Setting, report: &mut Report) -> Result<()> {
    let (device, extent) = (&setting.device, &setting.extent);
    let load = |dtype| Tower::load((id, extent.size, dtype), device, setting);
    let f32 = load(DType::F32)?;
    let exact = Exact::of(&f32)?;
    if id == EncoderId::ClipL {
        exact.check_on_cpu(&f32, extent.size, report)?;
    }
    exact.check_ways(&f32, report);
    drop(f32);
    exact.check_ways(&load(DType::BF16)?, report);
    let f16 = load(DType::F16)?;
    exact.check_ways(&f16, report);
    let compared = odd_batches(&f16, &exact.windows, extent.batches, report);
    report.attempt(&format!("{id}: odd batches"), compared);
    following::check(&f16, &exact.windows, extent.replays, report);
    Ok(())
}

impl Exact {
    fn of(tower: &Tower<'_>) -> Result<Exact> {
        let windows = WORDS.iter().map(|words| window(tower.id(), *words));
        let windows: Vec<Chunk> = windows.collect::<Result<_>>()?;
        let states = states(&tower.plain, &windows)?;
        Ok(Exact { windows, states })
    }

    /// The card's plain f32 against the processor's.
    fn check_on_cpu(
        &self,
        tower: &Tower<'_>,
        size: SyntheticSize,
        report: &mut Report,
    ) -> Result<()> {
        let id = tower.id();
        let here = Tower::load((id, size, DType::F32), &Device::Cpu, tower.setting)?;
        let cpu = states(&here.plain, &self.windows)?;
        let both = self.states.iter().zip(&cpu);
        for (what, (ours, theirs)) in ["hidden", "pooled"].iter().zip(both) {
            let what = format!("{id}, plain f32, {what}, CPU");
            report.check(&what, distance(ours, theirs)?, 2e-5);
        }
        Ok(())
    }

    /// All ways of one type against f32. One that fails says nothing of the others.
    fn check_ways(&self, tower: &Tower<'_>, report: &mut Report) {
        for way in tower.ways() {
            let compared = self.compare(tower, way, report);
            report.attempt(&format!("{} {}", tower.named(), way.name()), compared);
        }
    }

    fn compare(&self, tower: &Tower<'_>, way: Way, report: &mut Report) -> Result<()> {
        let typed = format!("{} {}", tower.named(), way.name());
        let clip = tower.on(way)?;
        let first = states(&clip, &self.windows)?;
        let ours = states(&clip, &self.windows)?;
        let bars = bars(tower.id(), tower.plain.dtype());
        for (place, what) in ["hidden", "pooled"].iter().enumerate() {
            let bar = bars[place].map(|bar| widened(bar, tower.plain.config()));
            let found = distance(&ours[place], &self.states[place])?;
            report.check_all(&format!("{typed}, {what}"), found, bar);
        }
        if !way.captures() {
            return Ok(());
        }
        let equal = same(&ours[0], &first[0])? && same(&ours[1], &first[1])?;
        report.holds(&format!("{typed}: replayed is what was run"), equal);
        let captured = clip.captured() > 0 || clip.device().is_cpu();
        let why = clip.capture_failure().unwrap_or_default();
        report.holds(&format!("{typed}: forwards are captured {why}"), captured);
        if way == Way::Fastest {
            show(&clip);
        }
        Ok(())
    }
}

/// What was measured so far, for whoever wonders at the times.
pub(crate) fn show(clip: &ClipText) {
    for line in clip.measured() {
        println!(
            "{} {}: {line}",
            clip.config().encoder,
            clip.dtype().as_str()
        );
    }
}

/// Numbers of windows that no graph has, hidden keys, vectors, and readouts that differ.
fn odd_batches(
    tower: &Tower<'_>,
    windows: &[Chunk],
    batches: &[usize],
    report: &mut Report,
) -> Result<()> {
    let (id, plain) = (tower.id(), &tower.plain);
    let captured = tower.on(Way::Fastest)?;
    let there = rising(plain)?;
    // Those of embeddings come from the host.
    let vectors = [there.to_device(&Device::Cpu)?, there];
    for &count in batches {
        let all = windows.iter().cycle().take(count).map(Window::from);
        let bare: Vec<Window<'_>> = all.collect();
        let changed = changed(&bare, &vectors);
        let full = vec![readout(plain); count];
        for (what, windows, readouts) in [
            ("alike", &bare, &full),
            ("vectors and hidden keys", &changed, &full),
            ("two readouts", &changed, &every_other_shallow(&full)),
        ] {
            let what = format!("{id} f16, {count} windows, {what}");
            check_replay([plain, &captured], (windows, readouts), &what, report)?;
        }
    }
    show(&captured);
    Ok(())
}

/// Values from 0 to 1, as wide as the encoder.
fn rising(plain: &ClipText) -> Result<Tensor> {
    let width = plain.config().width;
    let vector = Tensor::arange(0_u32, u32::try_from(width)?, plain.device())?;
    Ok((vector.to_dtype(DType::F32)? / width as f64)?)
}

/// Every third window with a vector, one of these by turns, and every third with hidden keys.
fn changed<'a>(bare: &[Window<'a>], vectors: &[Tensor; 2]) -> Vec<Window<'a>> {
    let mut hidden = [false; 77];
    hidden[3..20].fill(true);
    let places = bare.iter().enumerate();
    let changed = places.map(|(place, window)| match place % 3 {
        0 => window
            .clone()
            .with_vector(2, vectors[place / 3 % 2].clone()),
        1 => window.clone().hiding(hidden),
        _ => window.clone(),
    });
    changed.collect()
}

/// Two readouts by turns.
fn every_other_shallow(full: &[Readout]) -> Vec<Readout> {
    let shallow = |full: Readout| Readout {
        layer: 1,
        final_norm: true,
        pooled: Pooled::Skip,
        ..full
    };
    let places = full.iter().copied().enumerate();
    let mixed = places.map(|(place, full)| match place % 2 {
        0 => full,
        _ => shallow(full),
    });
    mixed.collect()
}

/// What is captured against its plain twin, when it is run and when it is replayed.
fn check_replay(
    [plain, captured]: [&ClipText; 2],
    (windows, readouts): (&[Window<'_>], &[Readout]),
    what: &str,
    report: &mut Report,
) -> Result<()> {
    let twin = plain.encode(windows, readouts)?;
    for time in ["run", "replayed"] {
        let ours = captured.encode(windows, readouts)?;
        let found = distance(&ours.hidden, &twin.hidden)?;
        let what = format!("{what}, {time}");
        report.check(&what, found, 6e-3);
        let found = distance(&first_pooled(&ours)?, &first_pooled(&twin)?)?;
        report.check(&format!("{what}, pooled"), found, 6e-3);
    }
    Ok(())
}

/// The first window's pooled vector; those of windows without one are nobody's.
fn first_pooled(encoded: &Encoded) -> Result<Tensor> {
    let pooled = encoded.normed.as_ref().or(encoded.projected.as_ref());
    Ok(pooled.context("no pooled vectors")?.narrow(0, 0, 1)?)
}

/// The state before the last layer, and the pooled vector.
fn readout(clip: &ClipText) -> Readout {
    let layers = clip.config().layers;
    let pooled = match clip.config().encoder {
        EncoderId::ClipL => Pooled::Normed,
        _ => Pooled::Projected,
    };
    Readout {
        layer: layers - 1,
        final_norm: false,
        pooled,
        pooled_layer: layers,
    }
}

pub(crate) fn states(clip: &ClipText, windows: &[Chunk]) -> Result<States> {
    let windows: Vec<Window<'_>> = windows.iter().map(Window::from).collect();
    let readout = readout(clip);
    let encoded = clip.encode(&windows, &vec![readout; windows.len()])?;
    let pooled = encoded
        .pooled(readout.pooled)
        .context("no pooled vectors")?;
    Ok([encoded.hidden.clone(), pooled.clone()])
}

/// A window with so many words.
pub(crate) fn window(id: EncoderId, words: usize) -> Result<Chunk> {
    let family = match id {
        EncoderId::ClipL => Family::Sd1,
        EncoderId::OpenClipH => Family::Sd2,
        _ => Family::Refiner,
    };
    let words = ["lighthouse", "at", "dusk", "cat", "red"]
        .iter()
        .cycle()
        .take(words);
    let text = words.copied().collect::<Vec<_>>().join(" ");
    let mut chunks = chunks_for(family, text.as_str());
    let first = chunks
        .pop()
        .and_then(|(_, chunks)| chunks.iter().next().cloned());
    first.context("a prompt has a window")
}
