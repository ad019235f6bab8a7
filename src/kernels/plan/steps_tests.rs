//! The steps carried out with plain operations, against the tower as it is defined.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::*;
use crate::kernels::{Activation, Kernels, Reference};

const WIDTH: usize = 64;
const LAYERS: usize = 3;
const WINDOWS: usize = 2;
const WINDOW: usize = 77;
const VOCABULARY: usize = 13;
const PROJECTED: usize = 32;
const ENDS: [u32; WINDOWS] = [4, 76];
const ACTIVATION: Activation = Activation::GeluErf;

/// Values in [-0.5, 0.5) that differ by salt.
fn numbers(shape: &[usize], salt: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values =
        (0..count).map(|index| ((index * 7919 + salt * 104_729) % 6007) as f32 / 6007.0 - 0.5);
    Tensor::from_iter(values, &Device::Cpu)
        .unwrap()
        .reshape(shape)
        .unwrap()
}

fn matrix(which: Matrix) -> Tensor {
    let (shape, salt) = match which {
        Matrix::QueryKeyValue(layer) => ([3 * WIDTH, WIDTH], 10 + layer),
        Matrix::Out(layer) => ([WIDTH, WIDTH], 20 + layer),
        Matrix::Up(layer) => ([4 * WIDTH, WIDTH], 30 + layer),
        Matrix::Down(layer) => ([WIDTH, 4 * WIDTH], 40 + layer),
        Matrix::Projection => ([PROJECTED, WIDTH], 50),
    };
    numbers(&shape, salt)
}

fn bias(which: Matrix) -> Tensor {
    let rows = matrix(which).dim(0).unwrap();
    let salt = match which {
        Matrix::QueryKeyValue(layer) => 60 + layer,
        Matrix::Out(layer) => 70 + layer,
        Matrix::Up(layer) => 80 + layer,
        Matrix::Down(layer) => 90 + layer,
        Matrix::Projection => unreachable!("it has none"),
    };
    numbers(&[rows], salt)
}

fn norm(x: &Tensor, which: NormAt) -> Tensor {
    let salt = match which {
        NormAt::First(layer) => 100 + layer,
        NormAt::Second(layer) => 110 + layer,
        NormAt::Final => 120,
    };
    let (weight, shift) = (numbers(&[WIDTH], salt), numbers(&[WIDTH], salt + 50));
    plain().layer_norm(x, &weight, &shift).unwrap()
}

fn plain() -> Reference {
    Reference::new(&Device::Cpu).unwrap()
}

fn embedded() -> Tensor {
    let ids = (0..WINDOWS * WINDOW).map(|row| u32::try_from(row * 5 % VOCABULARY).unwrap());
    let ids = Tensor::from_iter(ids, &Device::Cpu).unwrap();
    let rows = numbers(&[VOCABULARY, WIDTH], 1)
        .index_select(&ids, 0)
        .unwrap();
    let rows = rows.reshape((WINDOWS, WINDOW, WIDTH)).unwrap();
    let rows = rows.broadcast_add(&numbers(&[WINDOW, WIDTH], 2)).unwrap();
    rows.reshape((WINDOWS * WINDOW, WIDTH)).unwrap()
}

fn attended(stacked: &Tensor) -> Tensor {
    let stacked = stacked.reshape((WINDOWS, WINDOW, 3 * WIDTH)).unwrap();
    let mixed = plain().causal_attention(&stacked, 1, None).unwrap();
    mixed.reshape((WINDOWS * WINDOW, WIDTH)).unwrap()
}

fn end_rows(x: &Tensor) -> Tensor {
    let rows = ENDS.iter().zip(0..).map(|(end, window)| window * 77 + end);
    x.index_select(&Tensor::from_iter(rows, &Device::Cpu).unwrap(), 0)
        .unwrap()
}

/// The states after every layer, by definition.
fn states() -> Vec<Tensor> {
    let kernels = plain();
    let linear = |x: &Tensor, which| {
        kernels
            .linear(x, &matrix(which), Some(&bias(which)))
            .unwrap()
    };
    let mut states = vec![embedded()];
    for layer in 0..LAYERS {
        let x = states[layer].clone();
        let stacked = linear(
            &norm(&x, NormAt::First(layer)),
            Matrix::QueryKeyValue(layer),
        );
        let x = (x + linear(&attended(&stacked), Matrix::Out(layer))).unwrap();
        let inner = linear(&norm(&x, NormAt::Second(layer)), Matrix::Up(layer));
        let inner = kernels.activate(&inner, ACTIVATION).unwrap();
        states.push((x + linear(&inner, Matrix::Down(layer))).unwrap());
    }
    states
}

type At = HashMap<Place, Tensor>;

/// The buffers after all steps.
fn carried_out(spec: &Spec) -> At {
    let mut at = At::new();
    for step in steps(spec) {
        carry_out(step, &mut at);
    }
    at
}

fn carry_out(step: Step, at: &mut At) {
    let kernels = plain();
    let biased = |place, matrix| at[&place].broadcast_add(&bias(matrix)).unwrap();
    match step {
        Step::Embed(which) => {
            at.insert(Place::Normed, norm(&embedded(), which));
            at.insert(Place::X, embedded());
        }
        Step::Product(which, from, to) => {
            let product = kernels.linear(&at[&from], &matrix(which), None);
            at.insert(to, product.unwrap());
        }
        Step::Attention(layer) => {
            let stacked = biased(Place::Stacked, Matrix::QueryKeyValue(layer));
            at.insert(Place::Mixed, attended(&stacked));
        }
        Step::Activate(layer) => {
            let inner = kernels.activate(&biased(Place::Inner, Matrix::Up(layer)), ACTIVATION);
            at.insert(Place::Inner, inner.unwrap());
        }
        Step::Residual { bias, norm, keep } => {
            let x = (&at[&Place::X] + biased(Place::Product, bias)).unwrap();
            residual(x, norm, keep, at);
        }
        Step::FinalNorm => drop(at.insert(Place::Hidden, norm(&at[&Place::X], NormAt::Final))),
        Step::Pool => {
            let rows = norm(&end_rows(&at[&Place::X]), NormAt::Final);
            at.insert(Place::Pooled, rows.clone());
            at.insert(Place::PooledNarrow, rows);
        }
    }
}

fn residual(x: Tensor, then: Option<NormAt>, keep: bool, at: &mut At) {
    if let Some(then) = then {
        at.insert(Place::Normed, norm(&x, then));
    }
    if keep {
        at.insert(Place::Hidden, x.clone());
    }
    at.insert(Place::X, x);
}

fn assert_equal(what: &str, a: &Tensor, b: &Tensor) {
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    let most = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(most < 1e-5, "{what}: {most}");
}

#[test]
fn the_steps_are_the_tower() {
    let states = states();
    for (layer, final_norm) in [(1, false), (2, true), (3, false), (3, true)] {
        for pooled in [None, Some((3, false)), Some((3, true)), Some((1, true))] {
            let pooled = pooled.map(|(layer, projected)| PooledFrom { layer, projected });
            let spec = Spec {
                layer,
                final_norm,
                pooled,
                hidden_keys: false,
            };
            let at = carried_out(&spec);
            let hidden = if final_norm {
                norm(&states[layer], NormAt::Final)
            } else {
                states[layer].clone()
            };
            assert_equal(&format!("{spec:?}"), &at[&Place::Hidden], &hidden);
            match pooled {
                None => assert!(!at.contains_key(&Place::Pooled)),
                Some(pooled) => assert_pooled(&at, &states, pooled),
            }
        }
    }
}

fn assert_pooled(at: &At, states: &[Tensor], pooled: PooledFrom) {
    let rows = norm(&end_rows(&states[pooled.layer]), NormAt::Final);
    assert_equal("pooled", &at[&Place::Pooled], &rows);
    let product = plain().linear(&rows, &matrix(Matrix::Projection), None);
    match at.get(&Place::Projected) {
        Some(projected) => assert_equal("projected", projected, &product.unwrap()),
        None => assert!(!pooled.projected),
    }
}

#[test]
fn layers_that_nothing_reads_are_not_run() {
    let spec = Spec {
        layer: 2,
        final_norm: false,
        pooled: None,
        hidden_keys: false,
    };
    assert_eq!(steps(&spec).len(), 1 + 2 * 8);
    let runs_third = |step: &Step| matches!(step, Step::Attention(2));
    assert!(!steps(&spec).iter().any(runs_third));
    let pooled = Some(PooledFrom {
        layer: 3,
        projected: true,
    });
    assert!(steps(&Spec { pooled, ..spec }).iter().any(runs_third));
}

#[test]
fn every_buffer_is_written_before_it_is_read() {
    let pooled = Some(PooledFrom {
        layer: 3,
        projected: true,
    });
    let spec = Spec {
        layer: 2,
        final_norm: true,
        pooled,
        hidden_keys: true,
    };
    let mut written: Vec<Place> = Vec::new();
    for step in steps(&spec) {
        let (reads, writes) = touched(&step);
        assert!(
            reads.iter().all(|place| written.contains(place)),
            "{step:?}"
        );
        written.extend(writes);
    }
    for place in Place::ALL {
        assert!(written.contains(&place), "{place:?}");
    }
    assert!(Place::ALL.iter().filter(|place| place.is_pooled()).count() == 3);
    assert!(Place::X.is_f32() && !Place::Normed.is_f32());
}

/// What a step reads, and what it writes.
fn touched(step: &Step) -> (Vec<Place>, Vec<Place>) {
    match step {
        Step::Embed(_) => (vec![], vec![Place::X, Place::Normed]),
        Step::Product(_, from, to) => (vec![*from], vec![*to]),
        Step::Attention(_) => (vec![Place::Stacked], vec![Place::Mixed]),
        Step::Activate(_) => (vec![Place::Inner], vec![Place::Inner]),
        Step::Residual { .. } => {
            let reads = vec![Place::X, Place::Product];
            (reads, vec![Place::X, Place::Normed])
        }
        Step::FinalNorm => (vec![Place::X], vec![Place::Hidden]),
        Step::Pool => (vec![Place::X], vec![Place::Pooled, Place::PooledNarrow]),
    }
}
