//! How far 16-bit weights are from f32 ones: each encoder at full size, eight prompts of different
//! length, random weights.
//!
//! `cargo bench --bench precision [-- clip_l clip_h clip_g] [-- cuda]`; on the CPU it takes about a
//! minute and 4 GB.
#![expect(clippy::print_stdout, reason = "a program that shows what it measures")]

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::chunks_for;
use sd_conditioner::encoder::{ClipConfig, ClipText, Pooled, Readout, Window};
use sd_conditioner::tokens::Chunk;
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};
use sd_conditioner::{Family, kernels};

const SEED: u64 = 73;

/// From nothing to a full window.
const PROMPTS: [&str; 8] = [
    "",
    "cat",
    "a photo of a cat",
    "a lighthouse on a cliff at dusk, drifting fog",
    "portrait of an old sailor, deep wrinkles, wool cap, rim light, 85mm, film grain, muted colours",
    "an isometric cutaway of a tiny bakery, flour dust in the morning sun, copper pans, a cat asleep \
     on the window sill, soft shadows, intricate, clay render",
    "a sprawling night market beside a slow river, paper lanterns in every colour, steam rising from \
     copper pots, children chasing a small brown dog between the stalls, wet cobblestones, neon",
    "a sprawling night market beside a slow river, paper lanterns in every colour, steam rising from \
     copper pots, children chasing a small brown dog between the stalls, a violinist under a striped \
     awning, wet cobblestones reflecting neon, distant mountains under a thin crescent moon, a wooden \
     bridge crowded with people, cables of fairy lights, detailed brushwork, warm highlights",
];

type Error = Box<dyn std::error::Error>;

/// Hidden states before the last layer, and the pooled vectors.
type States = [Tensor; 2];

fn main() -> Result<(), Error> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| names.iter().any(|one| one == name);
    let encoders = [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG];
    let all = !encoders.iter().any(|encoder| named(encoder.tag()));
    let device = if named("cuda") {
        Device::new_cuda(0)?
    } else {
        Device::Cpu
    };
    println!("| encoder, weights | what | relative max | relative rms | least cosine |");
    println!("|---|---|---|---|---|");
    for encoder in encoders {
        if all || named(encoder.tag()) {
            rows(encoder, &device)?;
        }
    }
    Ok(())
}

fn rows(encoder: EncoderId, device: &Device) -> Result<(), Error> {
    let exact = run(encoder, DType::F32, &Device::Cpu)?;
    let on_cpu = device.is_cpu();
    let dtypes = [DType::F32, DType::F16, DType::BF16];
    for dtype in dtypes.into_iter().skip(usize::from(on_cpu)) {
        let rounded = run(encoder, dtype, device)?;
        for ((what, ours), exact) in ["penultimate", "pooled"].iter().zip(&rounded).zip(&exact) {
            let [max, rms, cosine] = distance(ours, exact)?;
            let dtype = dtype.as_str();
            println!("| {encoder}, {dtype} | {what} | {max:.1e} | {rms:.1e} | {cosine:.8} |");
        }
    }
    Ok(())
}

/// All prompts in one batch through one encoder.
fn run(encoder: EncoderId, dtype: DType, device: &Device) -> Result<States, Error> {
    let clip = load(encoder, dtype, device)?;
    let (family, pooled) = match encoder {
        EncoderId::ClipL => (Family::Sd1, Pooled::Normed),
        EncoderId::OpenClipH => (Family::Sd2, Pooled::Projected),
        EncoderId::OpenClipG => (Family::Refiner, Pooled::Projected),
        other => return Err(format!("no family for {other}").into()),
    };
    let windows: Vec<Chunk> = PROMPTS.iter().map(|text| window(family, text)).collect();
    let windows: Vec<Window<'_>> = windows.iter().map(Window::from).collect();
    let layers = clip.config().layers;
    let readout = Readout {
        layer: layers - 1,
        final_norm: false,
        pooled,
        pooled_layer: layers,
    };
    let encoded = clip.encode(&windows, &vec![readout; windows.len()])?;
    let pooled = encoded.pooled(pooled).ok_or("no pooled vectors")?;
    let on_cpu = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    Ok([on_cpu(&encoded.hidden)?, on_cpu(pooled)?])
}

fn load(encoder: EncoderId, dtype: DType, device: &Device) -> Result<ClipText, Error> {
    let source = Synthetic::new(encoder, SyntheticSize::Full, SEED);
    let config = ClipConfig::detect(encoder, &source)?;
    let kernels = kernels::choose(device)?;
    let kept = dtype.into();
    let clip = ClipText::load(&source, &config, kept, kernels, device, &mut |_, _| ())?;
    Ok(clip)
}

/// The only window of a prompt in diffusers' manner.
fn window(family: Family, text: &str) -> Chunk {
    let (_, chunks) = chunks_for(family, text).remove(0);
    chunks.iter().next().expect("a prompt has a window").clone()
}

/// `max|a-b|/max|b|`, `rms(a-b)/rms(b)`, and the smallest cosine over rows.
fn distance(a: &Tensor, b: &Tensor) -> Result<[f64; 3], Error> {
    let width = b.dims().last().copied().unwrap_or(1);
    let (a, b) = (
        a.flatten_all()?.to_vec1::<f64>()?,
        b.flatten_all()?.to_vec1::<f64>()?,
    );
    if !a.iter().chain(&b).all(|value| value.is_finite()) {
        return Err("a value is NaN or infinite".into());
    }
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let rows = a.chunks(width).zip(b.chunks(width));
    let cosine = rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    Ok([
        largest(&differences) / largest(&b),
        (dot(&differences, &differences) / dot(&b, &b)).sqrt(),
        cosine.fold(1.0, f64::min),
    ])
}

fn largest(values: &[f64]) -> f64 {
    values.iter().map(|value| value.abs()).fold(0.0, f64::max)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
