//! Whole encoders: fused and captured against plain f32, in every type.

use std::sync::Arc;

use anyhow::{Context, Result};
use sd_conditioner::Family;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::chunks_for;
use sd_conditioner::encoder::{ClipConfig, ClipText, Encoded, Pooled, Readout, Window};
use sd_conditioner::kernels::{Follow, Kernels, Options, Products, Reference, Tune, choose_with};
use sd_conditioner::tokens::Chunk;
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};

use super::report::{Report, distance, same};
use super::{Extent, following};

const SEED: u64 = 73;

/// Eight windows from nothing to full.
const WORDS: [usize; 8] = [0, 1, 5, 9, 17, 33, 60, 75];

/// An encoder in f16 on all ways.
pub(crate) struct Loaded {
    pub(crate) plain: ClipText,
    pub(crate) fused: ClipText,
    pub(crate) captured: ClipText,
    /// Captured, with the library's products alone.
    pub(crate) library: ClipText,
    /// Captured, with our own products wherever they can.
    pub(crate) own: ClipText,
}

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
        (EncoderId::OpenClipG, DType::F16) => {
            [[3.3e-3, 2e-3, 0.999_997_6], [2e-3, 2e-3, 0.999_997_6]]
        }
        (EncoderId::ClipL, _) => [[1.9e-2, 1.4e-2, 0.999_85], [1.4e-2, 1.5e-2, 0.999_85]],
        (EncoderId::OpenClipH, _) => [[2e-2, 1.5e-2, 0.999_84], [1.8e-2, 1.5e-2, 0.999_84]],
        (EncoderId::OpenClipG, _) => [[2.6e-2, 1.6e-2, 0.999_84], [1.5e-2, 1.6e-2, 0.999_84]],
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

/// Checks one encoder in all types; gives it in f16 to be measured.
pub(crate) fn check(
    id: EncoderId,
    extent: &Extent,
    device: &Device,
    report: &mut Report,
) -> Result<Loaded> {
    let plain = load(id, extent.size, DType::F32, device)?;
    let exact = Exact::of(&plain)?;
    if id == EncoderId::ClipL {
        exact.check_on_cpu(id, extent.size, report)?;
    }
    exact.check_ways(&plain, report);
    drop(plain);
    let mut f16 = None;
    for dtype in [DType::BF16, DType::F16] {
        let loaded = load(id, extent.size, dtype, device)?;
        exact.check_ways(&loaded, report);
        f16 = Some(loaded);
    }
    let plain = f16.context("f16 is one of the types")?;
    let compared = odd_batches(&plain, &exact.windows, extent.batches, report);
    report.attempt(&format!("{id}: odd batches"), compared);
    following::check(&plain, &exact.windows, extent.replays, report);
    all_ways(plain, &exact.windows, report)
}

/// The encoder on all ways; checks that forwards are captured where they can be.
fn all_ways(plain: ClipText, windows: &[Chunk], report: &mut Report) -> Result<Loaded> {
    let id = plain.config().encoder;
    let captured = on(&plain, true, Products::Measured)?;
    states(&captured, windows)?;
    let ready = captured.captured() > 0 || plain.device().is_cpu();
    let why = captured.capture_failure().unwrap_or_default();
    report.holds(&format!("{id}: forwards are captured {why}"), ready);
    Ok(Loaded {
        fused: on(&plain, false, Products::Measured)?,
        captured,
        library: on(&plain, true, Products::Library)?,
        own: on(&plain, true, Products::Own)?,
        plain,
    })
}

impl Exact {
    fn of(plain: &ClipText) -> Result<Exact> {
        let id = plain.config().encoder;
        let windows = WORDS.iter().map(|words| window(id, *words));
        let windows: Vec<Chunk> = windows.collect::<Result<_>>()?;
        let states = states(plain, &windows)?;
        Ok(Exact { windows, states })
    }

    /// The card's plain f32 against the processor's.
    fn check_on_cpu(&self, id: EncoderId, size: SyntheticSize, report: &mut Report) -> Result<()> {
        let cpu = states(&load(id, size, DType::F32, &Device::Cpu)?, &self.windows)?;
        let both = self.states.iter().zip(&cpu);
        for (what, (ours, theirs)) in ["hidden", "pooled"].iter().zip(both) {
            let what = format!("{id}, plain f32, {what}, CPU");
            report.check(&what, distance(ours, theirs)?, 2e-5);
        }
        Ok(())
    }

    /// Plain, fused and captured of one type against f32.
    fn check_ways(&self, plain: &ClipText, report: &mut Report) {
        let typed = format!("{} {}", plain.config().encoder, plain.dtype().as_str());
        let compared = self.compare(plain, &typed, report);
        report.attempt(&typed, compared);
    }

    fn compare(&self, plain: &ClipText, typed: &str, report: &mut Report) -> Result<()> {
        let (first, ways) = each_way(plain, &self.windows)?;
        for (way, ours) in ways {
            let bars = bars(plain.config().encoder, plain.dtype());
            for (place, what) in ["hidden", "pooled"].iter().enumerate() {
                let what = format!("{typed} {way}, {what}");
                let bar = bars[place].map(|bar| widened(bar, plain.config()));
                report.check_all(&what, distance(&ours[place], &self.states[place])?, bar);
            }
            if way == "captured" {
                let equal = same(&ours[0], &first[0])? && same(&ours[1], &first[1])?;
                report.holds(&format!("{typed}: replayed is what was run"), equal);
            }
        }
        Ok(())
    }
}

/// What the captured way gives before it is replayed; then what each way gives, by its name.
fn each_way(plain: &ClipText, windows: &[Chunk]) -> Result<(States, Vec<(&'static str, States)>)> {
    let captured = on(plain, true, Products::Measured)?;
    let first = states(&captured, windows)?;
    let replayed = states(&captured, windows)?;
    show(&captured);
    let fused = || on(plain, false, Products::Measured);
    let mut all = vec![
        ("plain", states(plain, windows)?),
        ("fused", states(&fused()?, windows)?),
        ("captured", replayed),
    ];
    // Our own products are of 16 bits.
    let ways = [
        ("library's products", Products::Library),
        ("own products", Products::Own),
    ];
    for (way, products) in ways.into_iter().filter(|_| plain.dtype() != DType::F32) {
        all.push((way, states(&on(plain, true, products)?, windows)?));
    }
    Ok((first, all))
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
    plain: &ClipText,
    windows: &[Chunk],
    batches: &[usize],
    report: &mut Report,
) -> Result<()> {
    let id = plain.config().encoder;
    let captured = on(plain, true, Products::Measured)?;
    let vector = rising(plain)?;
    for &count in batches {
        let all = windows.iter().cycle().take(count).map(Window::from);
        let bare: Vec<Window<'_>> = all.collect();
        let changed = changed(&bare, &vector);
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

/// Every third window with a vector, and every third with hidden keys.
fn changed<'a>(bare: &[Window<'a>], vector: &Tensor) -> Vec<Window<'a>> {
    let mut hidden = [false; 77];
    hidden[3..20].fill(true);
    let places = bare.iter().enumerate();
    let changed = places.map(|(place, window)| match place % 3 {
        0 => window.clone().with_vector(2, vector.clone()),
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

fn load(id: EncoderId, size: SyntheticSize, dtype: DType, device: &Device) -> Result<ClipText> {
    let source = Synthetic::new(id, size, SEED);
    let config = ClipConfig::detect(id, &source)?;
    let kernels = Arc::new(Reference::new(device)?);
    Ok(ClipText::load(
        &source,
        &config,
        dtype.into(),
        kernels,
        device,
        &mut |_, _| (),
    )?)
}

/// The same weights with other kernels, on the same device.
fn on(plain: &ClipText, capture: bool, products: Products) -> Result<ClipText> {
    with(
        plain,
        Options {
            capture,
            products,
            ..Options::default()
        },
    )
}

/// The same with kernels that follow each other in this manner.
pub(crate) fn following(plain: &ClipText, follow: Follow) -> Result<ClipText> {
    with(
        plain,
        Options {
            follow,
            ..Options::default()
        },
    )
}

fn with(plain: &ClipText, options: Options) -> Result<ClipText> {
    let options = Options {
        // Compiled and measured once for all: what the files keep is used, too.
        cache_dir: Some(super::measured_folder()),
        tune: Tune::AtFirst,
        ..options
    };
    let kernels: Arc<dyn Kernels> = choose_with(plain.device(), &options)?;
    Ok(plain.with_kernels(kernels))
}

/// The state before the last layer, and the pooled vector.
fn readout(clip: &ClipText) -> Readout {
    let layers = clip.config().layers;
    let pooled = match clip.config().encoder {
        EncoderId::ClipL => Pooled::Normed,
        EncoderId::OpenClipH | EncoderId::OpenClipG => Pooled::Projected,
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
        EncoderId::OpenClipG => Family::Refiner,
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
