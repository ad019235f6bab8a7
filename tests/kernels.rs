//! The plain operations against what they are by definition, computed in f64.

mod emulated;
mod few_rows;
mod many_rows;
mod towers;
mod whole;

use sd_conditioner::candle_core::{Device, Tensor};
use sd_conditioner::kernels::{Activation, Kernels, Reference, choose};

use crate::support::close::{assert_close, values};

/// Deterministic values in [-3, 3).
fn numbers(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|index| ((index * 7919 + salt * 104_729) % 6001) as f32 / 1000.0 - 3.0)
        .collect()
}

fn tensor(shape: &[usize], salt: usize) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product(), salt), shape, &Device::Cpu).unwrap()
}

fn expected(like: &Tensor, values: impl Iterator<Item = f64>) -> Tensor {
    let values: Vec<f64> = values.collect();
    Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap()
}

#[test]
fn activations_are_their_formulas() {
    let x = tensor(&[3, 40], 1);
    let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
    let tanh =
        |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh());
    let formulas: [(Activation, &dyn Fn(f64) -> f64); 3] = [
        (Activation::QuickGelu, &quick),
        (Activation::GeluErf, &|x| {
            0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt()))
        }),
        (Activation::GeluTanh, &tanh),
    ];
    let kernels = Reference::new(&Device::Cpu).unwrap();
    for (activation, formula) in formulas {
        let ours = kernels.activate(&x, activation).unwrap();
        let theirs = expected(&x, values(&x).into_iter().map(formula));
        assert_close(&format!("{activation:?}"), &ours, &theirs, 1e-6);
    }
}

/// The error function as its Maclaurin series, exact to f64 rounding for |x| < 3.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn layer_norm_is_its_formula() {
    let (x, weight, bias) = (tensor(&[5, 24], 2), tensor(&[24], 3), tensor(&[24], 4));
    let ours = Reference::new(&Device::Cpu)
        .unwrap()
        .layer_norm(&x, &weight, &bias)
        .unwrap();
    let (weights, biases) = (values(&weight), values(&bias));
    let rows: Vec<f64> = values(&x)
        .chunks(24)
        .flat_map(|row| {
            let mean = row.iter().sum::<f64>() / 24.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 24.0;
            let scale = (variance + 1e-5).sqrt();
            let one =
                |(column, x): (usize, &f64)| (x - mean) / scale * weights[column] + biases[column];
            row.iter().enumerate().map(one).collect::<Vec<_>>()
        })
        .collect();
    assert_close("layer norm", &ours, &expected(&x, rows.into_iter()), 1e-6);
}

#[test]
fn attention_is_causal_and_is_its_formula() {
    let (windows, rows, heads, head) = (2, 77, 2, 64);
    let width = heads * head;
    let qkv = tensor(&[windows, rows, 3 * width], 5);
    let ours = Reference::new(&Device::Cpu)
        .unwrap()
        .causal_attention(&qkv, heads, None)
        .unwrap();
    let all = values(&qkv);
    let at = |window: usize, row: usize, part: usize, channel: usize| {
        all[(window * rows + row) * 3 * width + part * width + channel]
    };
    let mut out = Vec::new();
    for (window, row, channel) in each(windows, rows, width) {
        let first = channel / head * head;
        let score = |column: usize| -> f64 {
            let products =
                (0..head).map(|c| at(window, row, 0, first + c) * at(window, column, 1, first + c));
            products.sum::<f64>() / (head as f64).sqrt()
        };
        let scores: Vec<f64> = (0..=row).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let mixed = weights
            .iter()
            .enumerate()
            .map(|(column, w)| w * at(window, column, 2, channel));
        out.push(mixed.sum::<f64>() / weights.iter().sum::<f64>());
    }
    assert_close("attention", &ours, &expected(&ours, out.into_iter()), 5e-6);
}

fn each(windows: usize, rows: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..windows).flat_map(move |window| {
        (0..rows).flat_map(move |row| (0..width).map(move |channel| (window, row, channel)))
    })
}

#[test]
fn the_chosen_kernels_equal_the_reference() {
    let (chosen, plain) = (
        choose(&Device::Cpu).unwrap(),
        Reference::new(&Device::Cpu).unwrap(),
    );
    let (x, weight, bias) = (tensor(&[9, 32], 6), tensor(&[16, 32], 7), tensor(&[16], 8));
    let product = plain.linear(&x, &weight, Some(&bias)).unwrap();
    assert_close(
        "linear",
        &chosen.linear(&x, &weight, Some(&bias)).unwrap(),
        &product,
        1e-6,
    );
    let activated = plain.activate(&x, Activation::QuickGelu).unwrap();
    let other = chosen.activate(&x, Activation::QuickGelu).unwrap();
    assert_close("quick GELU", &other, &activated, 1e-6);
}
