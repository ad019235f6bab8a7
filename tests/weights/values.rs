//! Values that are found wrong, or are put right, when they are read.

use std::path::Path;

use candle_core::{DType, Device};
use sd_conditioner::candle_core;
use sd_conditioner::weights::{Checkpoint, Embedding, EncoderId, Synthetic};
use sd_conditioner::{Error, ErrorKind};

use super::check_refused;
use crate::support::checkpoints::{Projection, huggingface, open_clip, source};
use crate::support::entries::{Entry, Stored, save};

fn l() -> Synthetic {
    source(EncoderId::ClipL, 1).without_projection()
}

fn entries(stored: Stored) -> Vec<Entry> {
    huggingface(&l(), "", "text_model.", Projection::None, stored)
}

/// The name of a weight in the file.
const FC1: &str = "text_model.encoder.layers.0.mlp.fc1";

fn replace(entries: &mut [Entry], name: &str, values: Vec<f32>) {
    let entry = entries
        .iter_mut()
        .find(|entry| entry.name == name)
        .expect("there");
    entry.make = std::rc::Rc::new(move || values.clone());
}

fn load_one(entries: &[Entry], name: &str) -> Result<Vec<f32>, Error> {
    load_as(entries, name, DType::F32)
}

fn load_as(entries: &[Entry], name: &str, dtype: DType) -> Result<Vec<f32>, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = save(&folder.path().join("file.safetensors"), entries);
    read_as(&path, name, dtype)
}

fn read_as(path: &Path, name: &str, dtype: DType) -> Result<Vec<f32>, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let source = checkpoint.encoder(checkpoint.encoders()[0])?;
    let tensor = source.load(name, dtype, &Device::Cpu)?;
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

#[test]
fn values_that_cannot_be_weights() {
    let count = 512 * 128;
    let check = |values: Vec<f32>, word: &str| {
        let mut entries = entries(Stored::F16);
        replace(&mut entries, &format!("{FC1}.weight"), values);
        check_refused(
            load_one(&entries, "layers.0.fc1.weight"),
            ErrorKind::TensorValue,
            &[FC1, word],
        );
    };
    let mut bad = vec![0.5; count];
    bad[77] = f32::NAN;
    check(bad.clone(), "value 77");
    bad[77] = f32::INFINITY;
    check(bad, "value 77");
    check(vec![0.0; count], "all values are zero");
    let mut entries = entries(Stored::F16);
    replace(&mut entries, &format!("{FC1}.bias"), vec![0.0; 512]);
    load_one(&entries, "layers.0.fc1.bias").expect("a bias may be zero");
}

/// Finite as stored, infinite in the type that was asked for.
#[test]
fn values_that_become_infinite() {
    let name = "layers.0.fc1.weight";
    let with = |stored: Stored, value: f32| {
        let mut entries = entries(stored);
        let mut values = vec![0.5; 512 * 128];
        values[77] = value;
        replace(&mut entries, &format!("{FC1}.weight"), values);
        entries
    };
    let half = [FC1, "value 77 is too large for F16", "bf16 or f32"];
    let brain = [FC1, "value 77 is too large for BF16", "load it as f32"];
    for stored in [Stored::F32, Stored::Bf16, Stored::F64] {
        let entries = with(stored, -1e5);
        let kind = ErrorKind::TensorValue;
        check_refused(load_as(&entries, name, DType::F16), kind, &half);
        for dtype in [DType::BF16, DType::F32] {
            let values = load_as(&entries, name, dtype).expect("within its range");
            assert!((values[77] + 1e5).abs() < 500.0, "{stored:?} {dtype:?}");
        }
        load_as(&with(stored, 65280.0), name, DType::F16).expect("within its range");
    }
    for stored in [Stored::F32, Stored::F64] {
        let entries = with(stored, f32::MAX);
        check_refused(
            load_as(&entries, name, DType::BF16),
            ErrorKind::TensorValue,
            &brain,
        );
        load_one(&entries, name).expect("within its range");
    }
}

/// Puts 1e300 in the place of one of the values of 0.3 in a file.
fn change(path: &Path, index: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    let marked = f64::from(0.3_f32).to_le_bytes();
    let first = bytes.windows(8).position(|eight| eight == marked);
    let at = first.expect("there") + 8 * index;
    bytes[at..at + 8].copy_from_slice(&1e300_f64.to_le_bytes());
    std::fs::write(path, bytes).expect("a file");
}

/// An embedding's vectors are f32.
#[test]
fn vectors_that_become_infinite() {
    let folder = tempfile::tempdir().expect("a folder");
    let entries = [Entry::filled("emb_params", Stored::F64, &[2, 128], 0.3)];
    let path = save(&folder.path().join("x.safetensors"), &entries);
    change(&path, 200);
    check_refused(
        Embedding::open(&path),
        ErrorKind::Embedding,
        &["emb_params", "value 200", "too large for F32"],
    );
}

/// The same of an f64 that no f32 holds, and in a tensor that is turned.
#[test]
fn values_that_become_infinite_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wide = entries(Stored::F64);
    replace(&mut wide, &format!("{FC1}.bias"), vec![0.3; 512]);
    let path = save(&folder.path().join("wide.safetensors"), &wide);
    change(&path, 3);
    let words = ["fc1.bias", "value 3 is too large for F32", "damaged"];
    let kind = ErrorKind::TensorValue;
    check_refused(
        read_as(&path, "layers.0.fc1.bias", DType::F32),
        kind,
        &words,
    );
    let g = source(EncoderId::OpenClipG, 1);
    let mut turned = open_clip(&g, "", Projection::Bare, Stored::F32);
    let mut values = g.values("projection").expect("G's");
    values[5] = 1e5;
    replace(&mut turned, "text_projection", values);
    let words = ["text_projection", "value 5 is too large for F16"];
    check_refused(load_as(&turned, "projection", DType::F16), kind, &words);
    // A scale makes it so.
    let (mut large, _) = scaled("scale_weight", &[1000.0], &[]);
    replace(&mut large, &format!("{FC1}.weight"), vec![100.0; 512 * 128]);
    let words = [FC1, "value 0 is too large for F16"];
    let name = "layers.0.fc1.weight";
    check_refused(load_as(&large, name, DType::F16), kind, &words);
    load_as(&large, name, DType::BF16).expect("within its range");
}

/// fp8 weights with a scale, stored as weight / scale.
fn scaled(scale_name: &str, scales: &[f32], shape: &[usize]) -> (Vec<Entry>, Vec<f32>) {
    let mut entries = entries(Stored::F16);
    let values = l().values("layers.0.fc1.weight").expect("fc1");
    let factor = |index: usize| scales[index / 128 % scales.len()];
    let stored: Vec<f32> = values
        .iter()
        .enumerate()
        .map(|(index, value)| value / factor(index))
        .collect();
    let read = stored.iter().enumerate();
    let expected = read
        .map(|(index, value)| Stored::F8E4m3.rounded(*value) * factor(index))
        .collect();
    replace(&mut entries, &format!("{FC1}.weight"), stored);
    let weight = entries
        .iter_mut()
        .find(|entry| entry.name == format!("{FC1}.weight"));
    weight.expect("fc1").stored = Stored::F8E4m3;
    let scales = scales.to_vec();
    entries.push(Entry::new(
        &format!("{FC1}.{scale_name}"),
        Stored::F32,
        shape,
        move || scales.clone(),
    ));
    entries.push(Entry::filled("scaled_fp8", Stored::F8E4m3, &[0], 0.0));
    entries.push(Entry::filled(
        &format!("{FC1}.scale_input"),
        Stored::F32,
        &[],
        1.0,
    ));
    (entries, expected)
}

#[test]
fn scaled_weights() {
    let rows: Vec<f32> = (0_u16..512)
        .map(|row| 0.001 + f32::from(row) / 65536.0)
        .collect();
    for (name, scales, shape) in [
        ("scale_weight", vec![0.003], vec![]),
        ("scale_weight", vec![0.003], vec![1]),
        ("weight_scale", rows.clone(), vec![512]),
        ("weight_scale", rows, vec![512, 1]),
    ] {
        let (entries, expected) = scaled(name, &scales, &shape);
        let found = load_one(&entries, "layers.0.fc1.weight").expect("a scaled weight");
        let bits = |values: &[f32]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&found), bits(&expected), "{name} {shape:?}");
    }
}

#[test]
fn scaled_weights_are_noted() {
    let (entries, _) = scaled("weight_scale", &[1.0], &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = save(&folder.path().join("file.safetensors"), &entries);
    let report = Checkpoint::open(&path).expect("L").report();
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("1 weights of 8 bits")),
        "{:?}",
        report.notes
    );
    assert_eq!(report.ignored.get("quantization"), Some(&2));
}

#[test]
fn bad_scales() {
    let value = ErrorKind::TensorValue;
    for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        let (mut entries, _) = scaled("weight_scale", &[1.0], &[]);
        replace(&mut entries, &format!("{FC1}.weight_scale"), vec![bad]);
        check_refused(load_one(&entries, "layers.0.fc1.weight"), value, &["scale"]);
    }
    let (entries, _) = scaled("weight_scale", &[1.0, 1.0, 1.0], &[3]);
    check_refused(
        load_one(&entries, "layers.0.fc1.weight"),
        value,
        &["weight_scale", "[3]", "512"],
    );
    let (mut entries, _) = scaled("weight_scale", &[1.0], &[]);
    entries.retain(|entry| !entry.name.ends_with("weight_scale"));
    let missing = ErrorKind::MissingTensor;
    check_refused(
        load_one(&entries, "layers.0.fc1.weight"),
        missing,
        &["scaled_fp8", "scale is missing"],
    );
}

#[test]
fn quantization_notes() {
    let noted = |format: &str, kept: fn(&str) -> bool| {
        let (mut entries, _) = scaled("weight_scale", &[1.0], &[]);
        entries.retain(|entry| kept(&entry.name));
        let text: Vec<f32> = format!("{{\"format\":\"{format}\"}}")
            .bytes()
            .map(f32::from)
            .collect();
        let length = text.len();
        entries.push(Entry::new(
            &format!("{FC1}.comfy_quant"),
            Stored::U8,
            &[length],
            move || text.clone(),
        ));
        load_one(&entries, "layers.0.fc1.weight")
    };
    noted("float8_e4m3fn", |_| true).expect("a known format");
    check_refused(
        noted("nvfp4", |_| true),
        ErrorKind::Unsupported,
        &["nvfp4", "comfy_quant"],
    );
    // The note stands for a scale as the mark of the whole file does.
    let bare = noted("float8_e4m3fn", |name| {
        !name.ends_with("weight_scale") && name != "scaled_fp8"
    });
    check_refused(
        bare,
        ErrorKind::MissingTensor,
        &[FC1, "comfy_quant", "scale is missing"],
    );
}

/// kohya's sd-scripts fill the projection that SD 2.x does not have with ones.
#[test]
fn a_projection_of_ones_is_none() {
    let h = source(EncoderId::OpenClipH, 1);
    let mut entries = open_clip(&h, "cond_stage_model.model.", Projection::Bare, Stored::F16);
    replace(
        &mut entries,
        "cond_stage_model.model.text_projection",
        vec![1.0; 192 * 192],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = save(&folder.path().join("file.safetensors"), &entries);
    let checkpoint = Checkpoint::open(&path).expect("SD 2.x");
    assert!(!checkpoint.has_projection(EncoderId::OpenClipH));
    let source = checkpoint.encoder(EncoderId::OpenClipH).expect("H");
    assert!(source.info("projection").is_none());
    assert!(
        checkpoint
            .report()
            .notes
            .iter()
            .any(|note| note.contains("kohya"))
    );
}

#[test]
fn damaged_position_ids_are_noted() {
    let noted = |stored: Stored, change: fn(f32) -> f32| {
        let mut entries = entries(Stored::F16);
        let name = "text_model.embeddings.position_ids";
        let ids = move || (0_u8..77).map(|id| change(f32::from(id))).collect();
        entries.push(Entry::new(name, stored, &[1, 77], ids));
        let folder = tempfile::tempdir().expect("a folder");
        let path = save(&folder.path().join("file.safetensors"), &entries);
        Checkpoint::open(&path).expect("L").report().notes
    };
    assert!(noted(Stored::I64, |id| id).is_empty());
    assert!(noted(Stored::F16, |id| id).is_empty());
    // Rounded, as other programs do, these are whole.
    assert!(noted(Stored::F16, |id| id * 0.998).is_empty());
    let notes = noted(Stored::F16, |id| id * 0.98);
    assert!(
        notes.iter().any(|note| note.contains("position_ids")),
        "{notes:?}"
    );
}

/// Both spellings: the linear one is used, and whether they agree is noted.
#[test]
fn two_projections() {
    let noted = |bare: fn(f32) -> f32| {
        let g = source(EncoderId::OpenClipG, 1);
        let mut entries = huggingface(&g, "", "text_model.", Projection::Linear, Stored::F32);
        let values = g.values("projection").expect("G's");
        let turned: Vec<f32> = (0..256 * 256)
            .map(|cell| bare(values[cell % 256 * 256 + cell / 256]))
            .collect();
        entries.push(Entry::new(
            "text_projection",
            Stored::F32,
            &[256, 256],
            move || turned.clone(),
        ));
        let folder = tempfile::tempdir().expect("a folder");
        let path = save(&folder.path().join("file.safetensors"), &entries);
        let checkpoint = Checkpoint::open(&path).expect("G");
        let source = checkpoint.encoder(EncoderId::OpenClipG).expect("G");
        let read = source
            .load("projection", DType::F32, &Device::Cpu)
            .expect("G's");
        assert_eq!(
            read.flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .expect("f32"),
            values
        );
        checkpoint.report().notes.join("; ")
    };
    assert!(noted(|value| value).contains("agree"));
    assert!(noted(|value| value * 2.0).contains("differ"));
}
