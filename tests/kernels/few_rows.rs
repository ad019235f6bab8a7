//! The products with few rows that cards make, run on a CPU as `emulated` runs all kernels.

use sd_conditioner::kernels::{Activation, Kernels};

use super::emulated::{TYPES, plain, rounded, run, shaped};
use super::tensor;
use crate::support::close::assert_close;

/// Rows, depth, columns, parts of the depth: more rows than a tile and fewer, more stages than are kept,
/// one, and a last part that is shorter.
const PRODUCTS: [[usize; 4]; 5] = [
    [154, 320, 128, 1],
    [77, 64, 64, 1],
    [81, 320, 192, 3],
    [5, 768, 64, 4],
    [160, 128, 64, 2],
];

#[test]
fn products_with_few_rows_equal_their_twins() {
    for [rows, depth, outputs, parts] in PRODUCTS {
        let (x, weight) = (tensor(&[rows, depth], 41), tensor(&[outputs, depth], 42));
        for (kind, dtype, _) in TYPES.into_iter().skip(1) {
            let (x_plain, plain_weight) = (rounded(&x, dtype), rounded(&weight, dtype));
            let twin = plain().linear(&x_plain, &plain_weight, None).unwrap();
            for columns in [32, 64] {
                let sizes = shaped(&[depth as f32, 3.0], &[2]);
                let kernel = format!("product_{columns}");
                let inputs = [&sizes, &x, &weight];
                let Some(planes) = run(&kernel, kind, [rows, outputs, parts], &inputs) else {
                    return;
                };
                let sum = shaped(&planes, &[parts, rows, outputs]).sum(0).unwrap();
                let what = format!("{kernel} {kind} {rows} × {depth} × {outputs} in {parts}");
                assert_close(&what, &sum, &twin, 4e-6);
            }
        }
    }
}

#[test]
fn products_with_few_rows_finish_as_their_twins() {
    let (rows, depth, outputs) = (83, 192, 64);
    let (x, weight) = (tensor(&[rows, depth], 43), tensor(&[outputs, depth], 44));
    let bias = tensor(&[outputs], 45);
    let which = [
        (0.0, Some(Activation::QuickGelu)),
        (1.0, Some(Activation::GeluErf)),
        (2.0, Some(Activation::GeluTanh)),
        (-1.0, None),
    ];
    for (kind, dtype, bar) in TYPES.into_iter().skip(1) {
        let (x_plain, plain_weight) = (rounded(&x, dtype), rounded(&weight, dtype));
        let sums = plain()
            .linear(&x_plain, &plain_weight, Some(&bias))
            .unwrap();
        for (number, activation) in which {
            let sizes = shaped(&[depth as f32, number], &[2]);
            let inputs = [&sizes, &x, &weight, &bias];
            for kernel in ["product_32", "product_64"] {
                let Some(ours) = run(kernel, kind, [rows, outputs, 1], &inputs) else {
                    return;
                };
                let twin = match activation {
                    Some(activation) => plain().activate(&sums, activation).unwrap(),
                    None => sums.clone(),
                };
                let what = format!("{kernel} {kind} {activation:?}");
                assert_close(&what, &shaped(&ours, &[rows, outputs]), &twin, bar);
            }
        }
    }
}

#[test]
fn every_line_is_asked_for_once() {
    for bytes in [1, 128, 129, 64 * 128, 100_001] {
        let Some(times) = run("ahead", "f32", [3, 2, bytes], &[]) else {
            return;
        };
        assert_eq!(times, vec![1.0; bytes.div_ceil(128)], "{bytes}");
    }
}
