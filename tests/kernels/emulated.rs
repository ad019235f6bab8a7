//! The CUDA kernels without a card: `src/kernels/cuda/*.cu` compiled as C++ with an emulator of a
//! block of threads (`emulator.h`), each kernel against its plain twin. Needs a C++ compiler named
//! `c++` on Linux; says so where there is none.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::kernels::{Activation, Kernels, Reference};

use super::tensor;
use crate::support::close::assert_close;
use crate::support::kept::Kept;

const WINDOW: usize = 77;

/// Relative bars: f32 differs in the order of sums only, the others by their rounding.
pub(super) const TYPES: [(&str, DType, f64); 3] = [
    ("f32", DType::F32, 1e-6),
    ("f16", DType::F16, 1e-3),
    ("bf16", DType::BF16, 8e-3),
];

/// The program that runs one kernel, compiled once; `None` without a compiler.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<(Kept, PathBuf)>> = OnceLock::new();
    let made = PROGRAM.get_or_init(|| {
        let found = Command::new("c++").arg("--version").output();
        if !cfg!(target_os = "linux") || !found.is_ok_and(|found| found.status.success()) {
            println!("NOT RUN: the emulated CUDA kernels need a C++ compiler `c++` on Linux");
            return None;
        }
        let kept = Kept::new("emulated");
        let program = kept.path().join("emulated");
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("c++")
            .args(["-std=c++17", "-O1", "-ffp-contract=off", "-I"])
            .arg(root.join("src/kernels/cuda"))
            .arg(root.join("tests/kernels/emulated.cpp"))
            .arg("-o")
            .arg(&program)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Some((kept, program))
    });
    made.as_ref().map(|(_, program)| program)
}

/// Ways that a card may run a block's threads in (`emulator.h`): which goes first, whether warps go as far
/// as they can alone, whether copies to shared memory arrive at once or when they are awaited.
const WAYS: [[&str; 3]; 4] = [
    ["forwards", "together", "late"],
    ["backwards", "together", "early"],
    ["forwards", "warps", "early"],
    ["backwards", "warps", "late"],
];

/// What a kernel makes of its inputs; `sizes` are rows, width and the kernel's own option. In whatever
/// way the threads run: what depends on it is a race.
pub(super) fn run(
    kernel: &str,
    kind: &str,
    sizes: [usize; 3],
    inputs: &[&Tensor],
) -> Option<Vec<f32>> {
    let program = program()?;
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    let run = |way| run_in_way(program, way, (kernel, kind), sizes, inputs);
    let first = run(WAYS[0]);
    for way in &WAYS[1..] {
        let same = bits(&run(*way)) == bits(&first);
        assert!(same, "{kernel} {kind}: a race, {way:?}");
    }
    Some(first)
}

fn run_in_way(
    program: &Path,
    [order, pace, copies]: [&str; 3],
    (kernel, kind): (&str, &str),
    sizes: [usize; 3],
    inputs: &[&Tensor],
) -> Vec<f32> {
    let mut child = Command::new(program)
        .env("EMULATED_ORDER", order)
        .env("EMULATED_PACE", pace)
        .env("EMULATED_COPIES", copies)
        .args([kernel, kind])
        .args(sizes.map(|size| size.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let values = inputs.iter().flat_map(|input| {
        let all = input.flatten_all().unwrap().to_vec1::<f32>();
        all.unwrap().into_iter().flat_map(f32::to_le_bytes)
    });
    let bytes: Vec<u8> = values.collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{kernel} {kind}: {output:?}");
    let values = output.stdout.chunks_exact(4);
    values
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect()
}

pub(super) fn shaped(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

pub(super) fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
}

pub(super) fn plain() -> Reference {
    Reference::new(&Device::Cpu).unwrap()
}

#[test]
fn attention_equals_its_twin() {
    let (windows, heads) = (2, 3);
    let (width, rows) = (heads * 64, windows * WINDOW);
    let (qkv, bias) = (tensor(&[rows, 3 * width], 21), tensor(&[3 * width], 22));
    let hidden = (0..rows).map(|row| match row % WINDOW {
        key if key > 0 && (key * 7 + row).is_multiple_of(3) => f32::NEG_INFINITY,
        _ => 0.0,
    });
    let hidden = Tensor::from_iter(hidden, &Device::Cpu).unwrap();
    for (kind, dtype, bar) in TYPES {
        let stacked = rounded(&qkv, dtype).broadcast_add(&bias).unwrap();
        let stacked = stacked.reshape((windows, WINDOW, 3 * width)).unwrap();
        for kernel in ["attention_plain", "attention_tensor"] {
            if dtype == DType::F32 && kernel == "attention_tensor" {
                continue; // it exists in 16 bits only
            }
            for masked in [false, true] {
                let keys = masked.then(|| hidden.reshape((windows, WINDOW)).unwrap());
                let mut inputs = vec![&qkv, &bias];
                inputs.extend(keys.as_ref());
                let sizes = [rows, width, usize::from(masked)];
                let Some(ours) = run(kernel, kind, sizes, &inputs) else {
                    return;
                };
                let twin = plain().causal_attention(&stacked, heads, keys.as_ref());
                let ours = shaped(&ours, &[windows, WINDOW, width]);
                let what = format!("{kernel} {kind} masked {masked}");
                assert_close(&what, &ours, &twin.unwrap(), 4.0 * bar);
            }
        }
    }
}

#[test]
fn activations_equal_their_twins() {
    // Rows are no multiple of four, and threads are left over.
    let (rows, width) = (9, 1032);
    let (x, bias) = (tensor(&[rows, width], 23), tensor(&[width], 24));
    let which = [
        Activation::QuickGelu,
        Activation::GeluErf,
        Activation::GeluTanh,
    ];
    for (kind, dtype, bar) in TYPES {
        for (option, activation) in which.into_iter().enumerate() {
            let added = rounded(&x, dtype).broadcast_add(&bias).unwrap();
            let twin = plain().activate(&added, activation).unwrap();
            for kernel in ["bias_activate", "bias_activate_many"] {
                let Some(ours) = run(kernel, kind, [rows, width, option], &[&x, &bias]) else {
                    return;
                };
                let ours = shaped(&ours, &[rows, width]);
                assert_close(
                    &format!("{kernel} {activation:?} {kind}"),
                    &ours,
                    &twin,
                    bar,
                );
            }
        }
    }
}

#[test]
fn the_sum_with_its_norm_equals_its_twin() {
    // 192 channels do not fill a warp's last threads.
    for (width, planes) in [(192, 1), (1280, 1), (192, 3), (128, 8)] {
        let (rows, n) = (3, 3 * width);
        let product = tensor(&[planes, rows, width], 25);
        let x = tensor(&[rows, width], 26);
        let row = |salt| tensor(&[width], salt);
        let (bias, weight, shift) = (row(27), row(28), row(29));
        let sum = (product.sum(0).unwrap() + &x).unwrap();
        let sum = sum.broadcast_add(&bias).unwrap();
        let twin = plain().layer_norm(&sum, &weight, &shift).unwrap();
        for (kind, _, bar) in TYPES {
            let inputs = [&product, &bias, &weight, &shift, &x];
            let Some(ours) = run("residual_norm", kind, [rows, width, planes], &inputs) else {
                return;
            };
            let what = format!("residual_norm {kind} {width}, {planes} planes");
            assert_close(&what, &shaped(&ours[..n], &[rows, width]), &sum, 1e-6);
            assert_close(&what, &shaped(&ours[n..], &[rows, width]), &twin, bar);
            let bare = run("residual_norm", kind, [rows, width, planes + 10], &inputs).unwrap();
            assert_close(&what, &shaped(&bare[..n], &[rows, width]), &sum, 1e-6);
            assert!(
                bare[n..].iter().all(|value| *value == 0.0),
                "no norm was asked for"
            );
        }
    }
}

#[test]
fn the_embedding_equals_its_twin() {
    let (windows, width, vocabulary) = (2, 128, 11);
    let rows = windows * WINDOW;
    let (table, positions) = (
        tensor(&[vocabulary, width], 31),
        tensor(&[WINDOW, width], 32),
    );
    let (weight, shift, x) = (
        tensor(&[width], 33),
        tensor(&[width], 34),
        tensor(&[rows, width], 35),
    );
    // Every ninth row holds a vector of its own already.
    let id = |row: usize| (!row.is_multiple_of(9)).then_some(row * 5 % vocabulary);
    let ids = Tensor::from_iter(
        (0..rows).map(|row| id(row).map_or(-1.0, |id| id as f32)),
        &Device::Cpu,
    );
    for (kind, dtype, bar) in TYPES {
        let inputs = [
            &ids.as_ref().unwrap().clone(),
            &table,
            &positions,
            &weight,
            &shift,
            &x,
        ];
        let Some(ours) = run("embed_norm", kind, [rows, width, vocabulary], &inputs) else {
            return;
        };
        let both = Tensor::cat(&[&rounded(&table, dtype), &x], 0).unwrap();
        let index =
            (0..rows).map(|row| u32::try_from(id(row).unwrap_or(vocabulary + row)).unwrap());
        let index = Tensor::from_iter(index, &Device::Cpu).unwrap();
        let embedded = both
            .index_select(&index, 0)
            .unwrap()
            .reshape((windows, WINDOW, width));
        let embedded = embedded.unwrap().broadcast_add(&positions).unwrap();
        let embedded = embedded.reshape((rows, width)).unwrap();
        let twin = plain().layer_norm(&embedded, &weight, &shift).unwrap();
        let n = rows * width;
        assert_close(
            &format!("embedding {kind}"),
            &shaped(&ours[..n], &[rows, width]),
            &embedded,
            1e-7,
        );
        assert_close(
            &format!("its norm {kind}"),
            &shaped(&ours[n..], &[rows, width]),
            &twin,
            bar,
        );
    }
}

#[test]
fn pooling_equals_its_twin() {
    let (windows, width) = (3, 192);
    let rows = windows * WINDOW;
    let ends = [0, 17, 76];
    let (x, weight, shift) = (
        tensor(&[rows, width], 36),
        tensor(&[width], 37),
        tensor(&[width], 38),
    );
    let places = ends
        .iter()
        .enumerate()
        .map(|(window, end)| u32::try_from(window * WINDOW + end).unwrap());
    let index = Tensor::from_iter(places, &Device::Cpu).unwrap();
    let picked = x.index_select(&index, 0).unwrap();
    let as_numbers = Tensor::from_iter(ends.map(|end| end as f32), &Device::Cpu).unwrap();
    for (kind, _, bar) in TYPES {
        let (some, all) = (&picked, &x);
        let cases = [
            (1, vec![&as_numbers, &weight, &shift, &x], some),
            (0, vec![&weight, &shift, &x], all),
        ];
        for (option, inputs, rows_normed) in cases {
            let Some(ours) = run("norm_rows", kind, [rows, width, option], &inputs) else {
                return;
            };
            let twin = plain().layer_norm(rows_normed, &weight, &shift).unwrap();
            let n = ours.len() / 2;
            assert_close(
                &format!("pooling {kind}"),
                &shaped(&ours[..n], twin.dims()),
                &twin,
                1e-6,
            );
            assert_close(
                &format!("pooling {kind}"),
                &shaped(&ours[n..], twin.dims()),
                &twin,
                bar,
            );
        }
    }
}

/// What is compiled, in this order.
const PARTS: [&str; 9] = [
    "common.cu",
    "norms.cu",
    "activation.cu",
    "many_rows.cu",
    "attention.cu",
    "few_rows.cu",
    "entries.cu",
    "many_entries.cu",
    "product_entries.cu",
];

/// Oldest card with each of the two attention kernels, and a newer one.
const TARGETS: [&str; 3] = ["compute_75", "compute_80", "compute_90"];

#[test]
fn the_kernels_compile_for_cards() {
    let found = Command::new("nvcc").arg("--version").output();
    if !found.is_ok_and(|found| found.status.success()) {
        println!("NOT RUN: compiling the CUDA kernels needs `nvcc`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder_of_kernels = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/kernels/cuda");
    let parts = PARTS.map(|part| std::fs::read_to_string(folder_of_kernels.join(part)).unwrap());
    let source = folder.path().join("all.cu");
    std::fs::write(&source, parts.join("\n")).unwrap();
    for (target, only) in TARGETS
        .into_iter()
        .zip(["ONLY_F32", "ONLY_F16", "ONLY_BF16"])
    {
        let ptx = folder.path().join(target);
        let output = Command::new("nvcc")
            .args(["-ptx", "-std=c++17", "-arch", target, "-D", only, "-o"])
            .args([&ptx, &source])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{target} {only}: {said}");
        let ptx = std::fs::read_to_string(ptx).unwrap();
        let name = only.trim_start_matches("ONLY_").to_lowercase();
        let attention = if only == "ONLY_F32" || target == "compute_75" {
            "attention_plain"
        } else {
            "attention_tensor"
        };
        for kernel in [
            "embed_norm",
            "residual_norm",
            "residual_norm_planes",
            "norm_rows",
            "bias_activate",
            "residual_norm_many_1280",
            "norm_many_768",
            "bias_activate_many",
            attention,
        ] {
            assert!(
                ptx.contains(&format!(".entry {kernel}_{name}(")),
                "{kernel}_{name}"
            );
        }
        let fragments = ptx.contains("mma.sync.aligned.m16n8k16");
        assert_eq!(fragments, only != "ONLY_F32", "{target} {only}");
        let products = ptx.contains(&format!(".entry product_64_{name}("));
        assert_eq!(products, only != "ONLY_F32", "{target} {only}");
        let overlap = ptx.contains("griddepcontrol.wait");
        assert_eq!(overlap, target == "compute_90", "{target} {only}");
    }
}
