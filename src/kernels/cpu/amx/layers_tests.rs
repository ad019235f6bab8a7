//! Layers on the matrix unit, or on what stands in for it, against those on vector units, whose twins
//! are the plain operations (`tests/kernels/towers.rs`).

use std::io::Write as _;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::super::Cpu;
use super::super::isa;
use super::super::rooms::Shelf;
use super::super::unit::{Products, Units};
use super::Amx;
use crate::kernels::{Activation, Block, Kernels, MatrixOf, NormOf, Product, Reference, Tower};
use crate::mapped::{self, Mapped};

const ROWS: usize = 77;

/// The matrix unit, or what stands in for it. Says so where there is neither.
pub(in super::super) fn unit() -> Option<Amx> {
    let amx = Amx::or_stand_in();
    if amx.is_none() {
        let why = "NOT RUN: it takes a CPU with AVX-512 and its bf16 instructions, and Linux";
        writeln!(std::io::stderr(), "{why}").unwrap();
    }
    amx
}

/// The matrix unit beside the vector unit that rounds as it does with such matrices; `None` if this
/// machine has not even the instructions around it.
fn units(dtype: DType) -> Option<[Cpu; 2]> {
    let amx = unit()?;
    let isa = isa::available().into_iter().next()?;
    let twin = match dtype {
        DType::BF16 => Products::Dots(isa::dots()?),
        _ => Products::Vector,
    };
    let cpu = |products| Cpu {
        unit: Units { isa, products },
        plain: Reference::new(&Device::Cpu).unwrap(),
        shelf: Shelf::default(),
    };
    Some([cpu(Products::Matrix(amx)), cpu(twin)])
}

/// How far they may be apart, relative to the largest value: sums in other orders, f16 in two parts of
/// bf16, and bf16 rounded to the other side.
fn bar(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 4e-3,
        DType::F16 => 2e-5,
        _ => 2e-6,
    }
}

fn tensor(shape: &[usize], salt: usize, scale: f64, middle: f64) -> Tensor {
    // The fractions of multiples of the golden ratio, which fill -1 to 1 evenly.
    let value = |number: usize| ((number + salt * 7919) as f64 * 0.618_033_988_749_895).fract();
    let n_values = shape.iter().product();
    let value = |number: usize| 2.0 * value(number * number % 100_003) - 1.0;
    let values: Vec<f64> = (0..n_values).map(value).collect();
    let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let values = values.affine(scale, middle).unwrap();
    values.to_dtype(DType::F32).unwrap()
}

/// Weights and biases of a block's norms and products.
struct Tensors([[Tensor; 2]; 6]);

impl Tensors {
    fn new(width: usize, mlp: usize, salt: usize, dtype: DType) -> Tensors {
        let norm = |salt| {
            [
                tensor(&[width], salt, 0.3, 1.0),
                tensor(&[width], salt + 1, 0.2, 0.0),
            ]
        };
        let product = |rows: usize, depth: usize, salt| {
            let scale = 1.7 / (depth as f64).sqrt();
            let weight = tensor(&[rows, depth], salt, scale, 0.0).to_dtype(dtype);
            [weight.unwrap(), tensor(&[rows], salt + 1, 0.1, 0.0)]
        };
        Tensors([
            norm(salt),
            product(3 * width, width, salt + 2),
            product(width, width, salt + 4),
            norm(salt + 6),
            product(mlp, width, salt + 8),
            product(width, mlp, salt + 10),
        ])
    }

    /// Query, key and value in a file, each at a place of its own.
    fn in_file(&self) -> [Mapped; 3] {
        let rows = self.0[1][0].dims2().unwrap().0 / 3;
        self.in_parts([rows; 3])
    }

    /// The same in parts of so many rows.
    fn in_parts(&self, parts: [usize; 3]) -> [Mapped; 3] {
        let stacked = &self.0[1][0];
        let width = stacked.dim(1).unwrap();
        let wide = stacked.to_dtype(DType::F32).unwrap();
        let wide = wide.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let dtype = stacked.dtype();
        let bytes = |value: &f32| match dtype {
            DType::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        let (mut rest, mut file) = (&wide[..], Vec::new());
        let places = parts.map(|rows| {
            let (part, others) = rest.split_at(rows * width);
            rest = others;
            file.extend([0; 8]);
            let start = file.len() as u64;
            file.extend(part.iter().flat_map(bytes));
            (start, [rows, width])
        });
        let file = mapped::file(&file);
        places.map(|(start, shape)| Mapped::new(file.clone(), start, shape, dtype).unwrap())
    }

    fn block(&self) -> Block<'_> {
        let norm = |place: usize| {
            let [weight, bias] = &self.0[place];
            NormOf { weight, bias }
        };
        let product = |place: usize| {
            let [weight, bias] = &self.0[place];
            let weight = weight.into();
            Product { weight, bias }
        };
        Block {
            norm1: norm(0),
            query_key_value: product(1),
            out: product(2),
            norm2: norm(3),
            up: product(4),
            down: product(5),
        }
    }
}

/// The state after all layers, in a pool of so many threads.
fn run(unit: &Cpu, tower: &Tower<'_>, x: &Tensor, threads: usize) -> Vec<f32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    let keep = [tower.blocks.len()];
    let states = pool.build().unwrap();
    let states = states.install(|| unit.run(tower, x, None, &keep).unwrap().unwrap());
    states[0].flatten_all().unwrap().to_vec1().unwrap()
}

/// Layers of these shapes on both units; on the matrix unit with one thread and with three.
fn compare(dtype: DType, (width, mlp): (usize, usize), windows: usize) {
    let Some([matrix, twin]) = units(dtype) else {
        return;
    };
    let blocks = [3, 40].map(|salt| Tensors::new(width, mlp, salt, dtype));
    let activations = [
        Activation::QuickGelu,
        Activation::GeluErf,
        Activation::GeluTanh,
    ];
    let tower = Tower {
        blocks: blocks.iter().map(Tensors::block).collect(),
        heads: width / 64,
        activation: activations[windows % 3],
    };
    let x = tensor(&[windows, ROWS, width], 5, 2.0, 0.0);
    let ours = run(&matrix, &tower, &x, 1);
    assert_eq!(ours, run(&matrix, &tower, &x, 3), "{dtype:?} {windows}");
    let files = blocks.each_ref().map(Tensors::in_file);
    let mut parts = tower.clone();
    for (block, file) in parts.blocks.iter_mut().zip(&files) {
        block.query_key_value.weight = MatrixOf::Mapped(file);
    }
    assert_eq!(ours, run(&matrix, &parts, &x, 2), "{dtype:?} {windows}");
    let theirs = run(&twin, &tower, &x, 2);
    assert_near(&ours, &theirs, (dtype, windows));
}

fn assert_near(ours: &[f32], theirs: &[f32], (dtype, windows): (DType, usize)) {
    let most = |values: &mut dyn Iterator<Item = f32>| {
        // What is no number is more than any.
        values.fold(
            0.0,
            |most: f32, value| {
                if value <= most { most } else { value }
            },
        )
    };
    let largest = most(&mut theirs.iter().map(|value| value.abs()));
    let pairs = ours.iter().zip(theirs);
    let apart = most(&mut pairs.map(|(ours, theirs)| (ours - theirs).abs()));
    assert!(
        apart <= bar(dtype) * largest,
        "{dtype:?} {windows}: {apart} of {largest}"
    );
    // The same bits would be the same unit's.
    assert_ne!(ours, theirs, "{dtype:?} {windows}");
}

#[test]
fn windows_come_in_one_group_or_in_more() {
    for windows in [1, 2, 9] {
        compare(DType::BF16, (128, 512), windows);
    }
    compare(DType::F16, (128, 512), 2);
    compare(DType::F32, (128, 512), 3);
}

/// Wider than a task's rows and than what is split of the depth at once.
#[test]
fn layers_may_be_wide() {
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        compare(dtype, (64, 3168), 1);
    }
}

/// What is no whole number of the unit's blocks is the vector unit's.
#[test]
fn other_matrices_may_come_between() {
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        compare(dtype, (64, 100), 3);
    }
}

/// One part's form is every part's: others than equal ones are left to the plain operations.
#[test]
fn uneven_parts_are_not_taken() {
    let Some([matrix, _]) = units(DType::BF16) else {
        return;
    };
    let own = Tensors::new(64, 256, 3, DType::BF16);
    let x = tensor(&[1, ROWS, 64], 5, 2.0, 0.0);
    let cases = [
        ([64, 64, 64], true),
        ([160, 16, 16], false),
        ([96, 96, 0], false),
    ];
    for (rows, taken) in cases {
        let parts = own.in_parts(rows);
        let mut block = own.block();
        block.query_key_value.weight = MatrixOf::Mapped(&parts);
        let tower = Tower {
            blocks: vec![block],
            heads: 1,
            activation: Activation::GeluErf,
        };
        let states = matrix.run(&tower, &x, None, &[1]).unwrap();
        assert_eq!(states.is_some(), taken, "{rows:?}");
    }
}
