//! The CUDA kernels for many rows in the emulator, against their plain twins, and the short forms of the
//! non-linearities for 16 bits over all that they may meet.

use sd_conditioner::kernels::Kernels;

use super::emulated::{TYPES, plain, rounded, run, shaped};
use super::tensor;
use crate::support::close::assert_close;

/// All channels for which there are kernels; rows fill a whole number of blocks or not.
const SHAPES: [[usize; 2]; 5] = [[5, 128], [7, 256], [4, 768], [6, 1024], [9, 1280]];

#[test]
fn the_sum_with_its_norm_equals_its_twin() {
    for [rows, width] in SHAPES {
        let n = rows * width;
        let (product, x) = (tensor(&[rows, width], 41), tensor(&[rows, width], 42));
        let row = |salt| tensor(&[width], salt);
        let (bias, weight, shift) = (row(43), row(44), row(45));
        let sum = (&product + &x).unwrap().broadcast_add(&bias).unwrap();
        let twin = plain().layer_norm(&sum, &weight, &shift).unwrap();
        let inputs = [&product, &bias, &weight, &shift, &x];
        for (kind, _, bar) in TYPES {
            let what = format!("{kind} {rows} × {width}");
            let Some(ours) = run("residual_norm_many", kind, [rows, width, 0], &inputs) else {
                return;
            };
            assert_close(&what, &shaped(&ours[..n], &[rows, width]), &sum, 1e-6);
            assert_close(&what, &shaped(&ours[n..], &[rows, width]), &twin, bar);
            let bare = run("residual_norm_many", kind, [rows, width, 1], &inputs).unwrap();
            assert_close(&what, &shaped(&bare[..n], &[rows, width]), &sum, 1e-6);
            assert!(bare[n..].iter().all(|value| *value == 0.0), "no norm");
        }
    }
}

#[test]
fn the_norm_equals_its_twin() {
    for [rows, width] in SHAPES {
        let n = rows * width;
        let x = tensor(&[rows, width], 46);
        let (weight, shift) = (tensor(&[width], 47), tensor(&[width], 48));
        let twin = plain().layer_norm(&x, &weight, &shift).unwrap();
        for (kind, _, bar) in TYPES {
            let what = format!("{kind} {rows} × {width}");
            let inputs = [&weight, &shift, &x];
            let Some(ours) = run("norm_many", kind, [rows, width, 0], &inputs) else {
                return;
            };
            assert_close(&what, &shaped(&ours[..n], &[rows, width]), &twin, 1e-6);
            assert_close(&what, &shaped(&ours[n..], &[rows, width]), &twin, bar);
        }
    }
}

/// erf by its series, and where that takes long by the continued fraction of its complement.
fn erfc(x: f64) -> f64 {
    if x < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..60)
        .rev()
        .fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt())
}

/// To the rounding of 16 bits, and as near to 0 as those of f16 are apart there.
#[test]
fn short_forms_are_exact_to_16_bits() {
    let edges: [f32; 12] = [
        0.0, -0.0, 1e-7, -1e-7, 30.0, -30.0, 88.0, -88.0, 3e4, -3e4, 6e4, -6e4,
    ];
    let between = (0..2036_u16).map(|step| (f32::from(step) - 1018.0) / 80.0);
    let values: Vec<f32> = edges.into_iter().chain(between).collect();
    let forms: [fn(f64) -> f64; 3] = [
        |x| x / (1.0 + (-1.702 * x).exp()),
        |x| x.max(0.0) - 0.5 * x.abs() * erfc(x.abs() / std::f64::consts::SQRT_2),
        |x| x / (1.0 + (-1.595_769_121_605_730_8 * (x + 0.044_715 * x * x * x)).exp()),
    ];
    let x = shaped(&values, &[1, values.len()]);
    let none = (&x.narrow(0, 0, 1).unwrap().squeeze(0).unwrap() * 0.0).unwrap();
    for (kind, dtype, _) in TYPES.into_iter().skip(1) {
        let given = rounded(&x, dtype).flatten_all().unwrap().to_vec1::<f32>();
        let half = if kind == "f16" {
            0.5_f64.powi(11)
        } else {
            0.5_f64.powi(8)
        };
        for (option, form) in forms.into_iter().enumerate() {
            let sizes = [1, values.len(), option];
            let Some(ours) = run("bias_activate", kind, sizes, &[&x, &none]) else {
                return;
            };
            for (ours, x) in ours.iter().zip(given.as_ref().unwrap()) {
                let exact = form(f64::from(*x));
                let far = (f64::from(*ours) - exact).abs();
                // erfc's formula errs by 1.5e-7, times half of x.
                let bar = 1.01 * half * exact.abs() + 1e-7 + 7.5e-8 * f64::from(x.abs()).min(5.0);
                assert!(far <= bar, "{kind} {option} {x}: {ours}, {exact}");
            }
        }
    }
}
