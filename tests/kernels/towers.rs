//! Whole towers on every unit of this machine against the plain operations.

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::kernels::{Activation, Block, Cpu, Kernels, NormOf, Product, Reference, Tower};
use sd_conditioner::weights::Synthetic;

use crate::support::close::{assert_close, bits, distance};

const ROWS: usize = 77;

/// Owned tensors of a block, with numbers of the size that trained ones have.
struct Owned {
    norms: [[Tensor; 2]; 2],
    products: [[Tensor; 2]; 4],
}

fn scaled(shape: &[usize], salt: usize, scale: f64, middle: f64) -> Tensor {
    let name = format!("{salt}");
    let values = Synthetic::plain(73, "towers", &name, shape.iter().product(), scale);
    (Tensor::from_vec(values, shape, &Device::Cpu).unwrap() + middle).unwrap()
}

fn owned(width: usize, mlp: usize, salt: usize, dtype: DType) -> Owned {
    let norm = |salt| {
        [
            scaled(&[width], salt, 0.3, 1.0),
            scaled(&[width], salt + 1, 0.2, 0.0),
        ]
    };
    let product = |rows: usize, depth: usize, salt| {
        let scale = 1.7 / (depth as f64).sqrt();
        let weight = scaled(&[rows, depth], salt, scale, 0.0)
            .to_dtype(dtype)
            .unwrap();
        [weight, scaled(&[rows], salt + 1, 0.1, 0.0)]
    };
    Owned {
        norms: [norm(salt), norm(salt + 2)],
        products: [
            product(3 * width, width, salt + 4),
            product(width, width, salt + 6),
            product(mlp, width, salt + 8),
            product(width, mlp, salt + 10),
        ],
    }
}

impl Owned {
    fn block(&self) -> Block<'_> {
        let norm = |place: usize| NormOf {
            weight: &self.norms[place][0],
            bias: &self.norms[place][1],
        };
        let product = |place: usize| Product {
            weight: (&self.products[place][0]).into(),
            bias: &self.products[place][1],
        };
        Block {
            norm1: norm(0),
            query_key_value: product(0),
            out: product(1),
            norm2: norm(1),
            up: product(2),
            down: product(3),
        }
    }
}

/// The layers operation by operation; what a product takes is rounded to `factors` first.
fn plainly(
    tower: &Tower<'_>,
    x: &Tensor,
    hidden_keys: Option<&Tensor>,
    factors: DType,
) -> Vec<Tensor> {
    let plain = Reference::new(&Device::Cpu).unwrap();
    let (windows, rows, width) = x.dims3().unwrap();
    let linear = |x: &Tensor, by: Product<'_>| {
        // Matrices of odd shapes are left to the vector unit.
        let weight = by.weight.tensor().unwrap();
        let (rows, depth) = weight.dims2().unwrap();
        let whole = rows.is_multiple_of(32) && depth.is_multiple_of(32);
        let factors = if whole { factors } else { DType::F32 };
        let x = x.to_dtype(factors).unwrap().to_dtype(DType::F32).unwrap();
        plain.linear(&x, weight, Some(by.bias)).unwrap()
    };
    let norm = |x: &Tensor, by: NormOf<'_>| plain.layer_norm(x, by.weight, by.bias).unwrap();
    let mut x = x.reshape((windows * rows, width)).unwrap();
    let mut states = Vec::new();
    for block in &tower.blocks {
        let qkv = linear(&norm(&x, block.norm1), block.query_key_value);
        let qkv = qkv.reshape((windows, rows, 3 * width)).unwrap();
        let mixed = plain
            .causal_attention(&qkv, tower.heads, hidden_keys)
            .unwrap();
        let mixed = mixed.reshape((windows * rows, width)).unwrap();
        x = (x + linear(&mixed, block.out)).unwrap();
        let inner = linear(&norm(&x, block.norm2), block.up);
        let inner = plain.activate(&inner, tower.activation).unwrap();
        x = (x + linear(&inner, block.down)).unwrap();
        states.push(x.reshape((windows, rows, width)).unwrap());
    }
    states
}

/// Some keys of each window hidden, others than those of its neighbours.
fn some_hidden(windows: usize) -> Tensor {
    let values = (0..windows * ROWS).map(|place| {
        let (window, key) = (place / ROWS, place % ROWS);
        let hidden = key > 0 && (key + window).is_multiple_of(3);
        if hidden { f32::NEG_INFINITY } else { 0.0 }
    });
    let values: Vec<f32> = values.collect();
    Tensor::from_vec(values, (windows, ROWS), &Device::Cpu).unwrap()
}

/// What a unit rounds the factors of its products to, and how far it may be from the plain
/// operations that do the same, relative to the largest value. The matrix unit takes bf16 factors
/// where the matrices have no more digits, and two such parts for f16; where a sum falls on the other
/// side of a rounding, a factor differs by 2⁻⁸.
fn bar(unit: &Cpu, dtype: DType) -> (DType, f64) {
    match (unit.name(), dtype) {
        ("amx" | "avx512bf16", DType::BF16) => (DType::BF16, 4e-3),
        ("amx", DType::F16) => (DType::F32, 2e-5),
        _ => (DType::F32, 2e-6),
    }
}

const SHAPES: [(usize, usize); 4] = [(128, 512), (192, 768), (320, 1280), (64, 100)];

#[test]
fn every_unit_gives_the_plain_states() {
    let activations = [
        Activation::QuickGelu,
        Activation::GeluErf,
        Activation::GeluTanh,
    ];
    for unit in Cpu::all().unwrap() {
        for (turn, (width, mlp)) in SHAPES.into_iter().enumerate() {
            for (dtype, windows) in [(DType::F32, 1), (DType::F16, 2), (DType::BF16, 3)] {
                let blocks = [3, 40, 77].map(|salt| owned(width, mlp, salt, dtype));
                let tower = Tower {
                    blocks: blocks.iter().map(Owned::block).collect(),
                    heads: width / 64,
                    activation: activations[turn % 3],
                };
                let x = scaled(&[windows, ROWS, width], 5, 2.0, 0.0);
                let hidden = (turn % 2 == 1).then(|| some_hidden(windows));
                let ours = unit
                    .run(&tower, &x, hidden.as_ref(), &[1, 3])
                    .unwrap()
                    .unwrap();
                let (factors, bar) = bar(&unit, dtype);
                let theirs = plainly(&tower, &x, hidden.as_ref(), factors);
                let what = format!("{} {width}×{mlp} {dtype:?} {windows}", unit.name());
                assert_eq!(ours.len(), 2, "{what}");
                for (ours, layer) in ours.iter().zip([0, 2]) {
                    assert_close(&what, ours, &theirs[layer], bar);
                    assert!(distance(ours, &theirs[layer]).cosine > 0.99999, "{what}");
                }
            }
        }
    }
}

/// Wider than what any unit takes at once, in depth and in rows, for one window and for more than one
/// group of them.
#[test]
fn every_unit_gives_the_plain_states_of_wide_layers() {
    for unit in Cpu::all().unwrap() {
        for (dtype, windows, activation) in [
            (DType::F32, 1, Activation::GeluTanh),
            (DType::F16, 2, Activation::GeluErf),
            (DType::BF16, 9, Activation::GeluTanh),
        ] {
            let blocks = [owned(640, 3200, 3, dtype)];
            let tower = Tower {
                blocks: blocks.iter().map(Owned::block).collect(),
                heads: 10,
                activation,
            };
            let x = scaled(&[windows, ROWS, 640], 5, 2.0, 0.0);
            let ours = unit.run(&tower, &x, None, &[1]).unwrap().unwrap();
            let (factors, bar) = bar(&unit, dtype);
            let theirs = plainly(&tower, &x, None, factors);
            let what = format!("{} {dtype:?} {windows}", unit.name());
            assert_close(&what, &ours[0], &theirs[0], bar);
            assert!(distance(&ours[0], &theirs[0]).cosine > 0.99999, "{what}");
        }
    }
}

#[test]
fn a_matrix_gives_the_same_bits_wherever_it_lies() {
    let x = scaled(&[2, ROWS, 128], 5, 2.0, 0.0);
    for unit in Cpu::all().unwrap() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let run = |skipped| {
                let mut block = owned(128, 512, 3, dtype);
                for [weight, _] in &mut block.products {
                    *weight = behind(weight, skipped);
                }
                let tower = Tower {
                    blocks: vec![block.block()],
                    heads: 2,
                    activation: Activation::QuickGelu,
                };
                bits(&unit.run(&tower, &x, None, &[1]).unwrap().unwrap()[0])
            };
            let first = run(1);
            for skipped in [2, 7, 24] {
                assert_eq!(run(skipped), first, "{} {dtype:?} {skipped}", unit.name());
            }
        }
    }
}

/// The same matrix, with so many other values in front of it in its memory.
fn behind(matrix: &Tensor, skipped: usize) -> Tensor {
    let others = Tensor::ones(skipped, matrix.dtype(), &Device::Cpu).unwrap();
    let both = Tensor::cat(&[others, matrix.flatten_all().unwrap()], 0).unwrap();
    let matrix_alone = both.narrow(0, skipped, matrix.elem_count());
    matrix_alone.unwrap().reshape(matrix.shape()).unwrap()
}

#[test]
fn a_window_has_the_same_bits_in_any_company() {
    let x = scaled(&[19, ROWS, 128], 5, 2.0, 0.0);
    for dtype in [DType::F32, DType::BF16] {
        let blocks = [3, 40].map(|salt| owned(128, 512, salt, dtype));
        let tower = Tower {
            blocks: blocks.iter().map(Owned::block).collect(),
            heads: 2,
            activation: Activation::QuickGelu,
        };
        for unit in Cpu::all().unwrap() {
            let all = unit.run(&tower, &x, None, &[2]).unwrap().unwrap();
            for window in [0, 7, 8, 18] {
                let alone = x.narrow(0, window, 1).unwrap();
                let alone = unit.run(&tower, &alone, None, &[2]).unwrap().unwrap();
                let among = all[0].narrow(0, window, 1).unwrap().contiguous().unwrap();
                let what = format!("{} {dtype:?} {window}", unit.name());
                assert_eq!(bits(&alone[0]), bits(&among), "{what}");
            }
        }
    }
}

#[test]
fn a_pool_of_any_size_gives_the_same_bits() {
    let blocks = [3].map(|salt| owned(192, 768, salt, DType::BF16));
    let tower = Tower {
        blocks: blocks.iter().map(Owned::block).collect(),
        heads: 3,
        activation: Activation::GeluErf,
    };
    let x = scaled(&[2, ROWS, 192], 5, 2.0, 0.0);
    for unit in Cpu::all().unwrap() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let states = pool.install(|| unit.run(&tower, &x, None, &[1]).unwrap().unwrap());
            bits(&states[0])
        };
        assert_eq!(run(1), run(3), "{}", unit.name());
    }
}

/// Two layers of 128 whose MLPs are so wide, kept after some layers.
fn runs(unit: &Cpu, mlps: [usize; 2], keep: &[usize]) -> bool {
    let blocks = mlps.map(|mlp| owned(128, mlp, mlp, DType::F32));
    let tower = Tower {
        blocks: blocks.iter().map(Owned::block).collect(),
        heads: 2,
        activation: Activation::QuickGelu,
    };
    let x = scaled(&[1, ROWS, 128], 5, 2.0, 0.0);
    unit.run(&tower, &x, None, keep).unwrap().is_some()
}

#[test]
fn what_is_not_one_tower_is_left_to_the_operations() {
    for unit in Cpu::all().unwrap() {
        assert!(runs(&unit, [256, 256], &[1, 2]), "{}", unit.name());
        assert!(!runs(&unit, [256, 512], &[2]), "{}", unit.name());
        assert!(!runs(&unit, [256, 256], &[3]), "{}", unit.name());
        assert!(!runs(&unit, [256, 256], &[0]), "{}", unit.name());
    }
}

#[test]
fn towers_of_other_shapes_are_left_to_the_operations() {
    let blocks = [3].map(|salt| owned(96, 384, salt, DType::F32));
    let tower = Tower {
        blocks: blocks.iter().map(Owned::block).collect(),
        heads: 3,
        activation: Activation::QuickGelu,
    };
    let x = scaled(&[1, ROWS, 96], 5, 2.0, 0.0);
    for unit in Cpu::all().unwrap() {
        assert!(unit.run(&tower, &x, None, &[1]).unwrap().is_none());
    }
}
