//! Full-size encoders on the CPU, ours beside candle-transformers' own, in one run.
//!
//! `cargo bench --bench encode [-- sd1 sd2 sdxl]`; weights are random, which changes no time.
//! candle-transformers takes one window at a time (its mask has the wrong shape for more), so two
//! windows are two calls there. Runs alternate, so that both see the same machine.
#![expect(clippy::print_stdout, reason = "a program that shows what it does")]

use std::hint::black_box;
use std::time::Instant;

use candle_nn::{Module, VarBuilder, VarMap};
use candle_transformers::models::stable_diffusion::clip::{ClipTextTransformer, Config};
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request};

const RUNS: usize = 7;
const POSITIVE: &str = "a lighthouse on a cliff at dusk, drifting fog";
const NEGATIVE: &str = "blurry, low quality";

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    println!("| family | ours, ms (min) | candle-transformers, ms (min) | ratio (of the least) |");
    println!("|---|---|---|---|");
    for family in [Family::Sd1, Family::Sd2, Family::Sdxl] {
        if names.is_empty() || names.iter().any(|name| name == family.name()) {
            row(family)?;
        }
    }
    Ok(())
}

fn row(family: Family) -> Result<(), Error> {
    let text = Conditioner::builder()
        .cache(CacheOptions::OFF)
        .random_weights(family, SyntheticSize::Full, 73)?;
    let ours = || {
        let side = |text| Request::new(text).profile(Profile::ComfyUi);
        black_box(text.encode_pair(side(POSITIVE), side(NEGATIVE))?);
        Ok(())
    };
    let theirs = candle_transformers(family)?;
    let [(a, c), (b, d)] = time([&ours, &theirs])?;
    println!(
        "| {family} pair | {a:.0} ({c:.0}) | {b:.0} ({d:.0}) | {:.2} ({:.2}) |",
        b / a,
        d / c
    );
    Ok(())
}

/// The same windows through candle-transformers' text transformer (hidden states only).
fn candle_transformers(family: Family) -> Result<impl Fn() -> Result<(), Error>, Error> {
    let configs = match family {
        Family::Sd1 => vec![Config::v1_5()],
        Family::Sd2 => vec![Config::v2_1()],
        Family::Sdxl => vec![Config::sdxl(), Config::sdxl2()],
        Family::Refiner => vec![Config::sdxl2()],
        other => return Err(format!("candle-transformers has no {other}").into()),
    };
    let mut models = Vec::new();
    for config in &configs {
        let weights = VarMap::new();
        let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        models.push(ClipTextTransformer::new(builder, config)?);
    }
    let mut ids = vec![49406_u32];
    ids.resize(77, 49407);
    let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
    Ok(move || {
        for model in &models {
            for _ in 0..2 {
                black_box(model.forward(&ids)?);
            }
        }
        Ok(())
    })
}

type Work<'a> = &'a dyn Fn() -> Result<(), Error>;

/// Median and least of some runs of both in milliseconds, after one of each to warm up.
fn time(both: [Work<'_>; 2]) -> Result<[(f64, f64); 2], Error> {
    let mut times = [Vec::with_capacity(RUNS), Vec::with_capacity(RUNS)];
    for run in 0..=RUNS {
        for (work, times) in both.iter().zip(&mut times) {
            let start = Instant::now();
            work()?;
            if run > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[RUNS / 2], times[0])
    }))
}
