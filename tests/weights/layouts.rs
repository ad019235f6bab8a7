//! One synthetic checkpoint in every layout.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sd_conditioner::ErrorKind;
use sd_conditioner::Family::{self, Refiner, Sd1, Sd2, Sdxl};
use sd_conditioner::candle_core;
use sd_conditioner::weights::Layout as Id;
use sd_conditioner::weights::{Checkpoint, Container, EncoderId, TensorSource, combine};

use crate::support::checkpoints::{
    self, Layout, Projection, diffusers_source, huggingface, source, write,
};
use crate::support::entries::{Entry, Stored, save};
use crate::support::pickles::{Object, repickle, save_legacy, save_zip};

const SEED: u64 = 73;

/// Writes, opens, and compares every canonical tensor of every encoder bit for bit; then the same
/// with each file as a pickle of either form.
#[track_caller]
fn check(family: Family, layout: Layout, stored: Stored, ids: &[&str], found: Option<Family>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = write(folder.path(), family, layout, stored, SEED);
    verify(&paths, family, layout, stored, ids, found);
    let forms: [fn(&Path, &Object) -> PathBuf; 2] = [save_zip, save_legacy];
    for (index, path) in paths.iter_mut().enumerate() {
        let save = forms[(index + ids[0].len()) % 2];
        if path.is_dir() {
            for slot in ["text_encoder", "text_encoder_2"].map(|slot| path.join(slot)) {
                if slot.is_dir() {
                    let to = slot.join("pytorch_model.bin");
                    repickle(&slot.join("model.safetensors"), &to, save);
                }
            }
        } else {
            *path = repickle(path, &path.with_extension("ckpt"), save);
            let container = Checkpoint::open(path).expect("a pickle").container();
            assert_eq!(container, Container::PyTorch);
        }
    }
    verify(&paths, family, layout, stored, ids, found);
}

#[track_caller]
fn verify(
    paths: &[PathBuf],
    family: Family,
    layout: Layout,
    stored: Stored,
    ids: &[&str],
    found: Option<Family>,
) {
    let mut encoders = Vec::new();
    for (path, id) in paths.iter().zip(ids) {
        let checkpoint = Checkpoint::open(path).expect("a known layout");
        if found.is_some() || paths.len() == 1 {
            assert_eq!(checkpoint.family(), found, "{layout:?}");
        }
        assert!(checkpoint.candidates().contains(&family), "{layout:?}");
        let report = checkpoint.report();
        assert!(
            report.unused.is_empty(),
            "{layout:?} leaves {:?}",
            report.unused
        );
        for (index, encoder) in checkpoint.encoders().into_iter().enumerate() {
            let id = if paths.len() == 1 { ids[index] } else { id };
            assert_eq!(checkpoint.layout(encoder).map(Id::id), Some(id));
            let mut expected = source(encoder, SEED);
            if layout == Layout::Diffusers {
                expected = diffusers_source(encoder, SEED);
            } else if !checkpoint.has_projection(encoder) {
                expected = expected.without_projection();
            }
            let read = checkpoint.encoder(encoder).expect("a whole encoder");
            check_equal(&*read, &expected, stored);
            encoders.push(encoder);
        }
    }
    assert_eq!(encoders, family.encoders(), "{layout:?}");
}

/// Same names, same shapes, same bits.
#[track_caller]
pub(super) fn check_equal(read: &dyn TensorSource, expected: &dyn TensorSource, stored: Stored) {
    let sorted = |source: &dyn TensorSource| {
        let mut names = source.names();
        names.sort();
        names
    };
    assert_eq!(sorted(read), sorted(expected));
    for name in read.names() {
        let load = |source: &dyn TensorSource| {
            source
                .load(&name, DType::F32, &Device::Cpu)
                .expect("a tensor")
        };
        let (ours, theirs) = (load(read), load(expected));
        assert_eq!(ours.dims(), theirs.dims(), "{name}");
        assert_eq!(
            read.info(&name).expect("listed").shape,
            ours.dims(),
            "{name}"
        );
        let same = bits(&ours)
            .zip(bits(&theirs))
            .all(|(one, two)| one == stored.rounded(f32::from_bits(two)).to_bits());
        assert!(same, "{name} differs");
    }
}

fn bits(tensor: &Tensor) -> impl Iterator<Item = u32> + use<> {
    let values = tensor
        .flatten_all()
        .and_then(|flat| flat.to_vec1::<f32>())
        .expect("f32");
    values.into_iter().map(f32::to_bits)
}

#[test]
fn single_files() {
    check(Sd1, Layout::SingleFile, Stored::F32, &["S1"], Some(Sd1));
    check(Sd2, Layout::SingleFile, Stored::F32, &["S2"], Some(Sd2));
    check(
        Sdxl,
        Layout::SingleFile,
        Stored::F32,
        &["SX-1", "SX-2"],
        Some(Sdxl),
    );
    check(
        Refiner,
        Layout::SingleFile,
        Stored::F32,
        &["SR"],
        Some(Refiner),
    );
}

#[test]
fn rarer_single_files() {
    check(
        Sd1,
        Layout::SingleFileFlat,
        Stored::F32,
        &["S1-flat"],
        Some(Sd1),
    );
    check(Sd2, Layout::Sgm, Stored::F32, &["S2-sgm"], Some(Sd2));
    check(Sd2, Layout::Transformers, Stored::F32, &["SW"], Some(Sd2));
    check(
        Sdxl,
        Layout::SingleFileFlat,
        Stored::F32,
        &["SX-flat", "SX-2"],
        Some(Sdxl),
    );
    check(
        Sdxl,
        Layout::LinearProjection,
        Stored::F32,
        &["SX-1", "SX-2b"],
        Some(Sdxl),
    );
}

#[test]
fn one_encoder_in_a_file() {
    check(Sdxl, Layout::Standalone, Stored::F32, &["C1", "C2"], None);
    check(Sd2, Layout::Standalone, Stored::F32, &["C2"], Some(Sd2));
    check(
        Sdxl,
        Layout::OpenClip,
        Stored::F32,
        &["open-clip", "open-clip"],
        None,
    );
    check(Sd2, Layout::OpenClipText, Stored::F32, &["C8"], Some(Sd2));
    check(
        Refiner,
        Layout::ClipModel,
        Stored::F32,
        &["clip-model"],
        None,
    );
    check(Sd1, Layout::ClipModel, Stored::F32, &["clip-model"], None);
}

#[test]
fn one_encoder_written_by_tools() {
    check(
        Sdxl,
        Layout::ComfyOld,
        Stored::F32,
        &["C4-old", "C4-old"],
        None,
    );
    check(Sdxl, Layout::ComfySave, Stored::F32, &["C4", "C4"], None);
    check(Sd1, Layout::StandaloneFlat, Stored::F32, &["C1-flat"], None);
    check(Refiner, Layout::Wrapped, Stored::F32, &["C8"], None);
    check(
        Sdxl,
        Layout::ComfyPrefixed,
        Stored::F32,
        &["C5", "C5"],
        Some(Sdxl),
    );
    check(Sd2, Layout::ComfyPrefixed, Stored::F32, &["C5"], Some(Sd2));
    check(Sdxl, Layout::SdCpp, Stored::F32, &["C7", "C7"], Some(Sdxl));
    check(Sd1, Layout::SdCpp, Stored::F32, &["C7"], Some(Sd1));
}

#[test]
fn diffusers_folders() {
    check(
        Sd1,
        Layout::Diffusers,
        Stored::F32,
        &["diffusers"],
        Some(Sd1),
    );
    check(
        Sd2,
        Layout::Diffusers,
        Stored::F32,
        &["diffusers"],
        Some(Sd2),
    );
    check(
        Sdxl,
        Layout::Diffusers,
        Stored::F32,
        &["diffusers", "diffusers"],
        Some(Sdxl),
    );
    check(
        Refiner,
        Layout::Diffusers,
        Stored::F32,
        &["diffusers"],
        Some(Refiner),
    );
}

#[test]
fn every_stored_type() {
    for stored in [
        Stored::F64,
        Stored::F16,
        Stored::Bf16,
        Stored::F8E4m3,
        Stored::F8E5m2,
    ] {
        check(Sd2, Layout::SingleFile, stored, &["S2"], Some(Sd2));
        check(Sd1, Layout::SingleFile, stored, &["S1"], Some(Sd1));
    }
}

#[test]
fn tensors_come_in_file_order_and_in_the_type_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = &write(folder.path(), Sd2, Layout::SingleFile, Stored::F16, SEED)[0];
    let checkpoint = Checkpoint::open(path).expect("SD 2.x");
    let source = checkpoint.encoder(checkpoint.encoders()[0]).expect("H");
    let names = source.names();
    let place = |name: &str| names.iter().position(|other| other == name);
    assert_eq!(
        place("layers.0.k.weight"),
        place("layers.0.q.weight").map(|place| place + 1)
    );
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let tensor = source
            .load("layers.3.v.bias", dtype, &Device::Cpu)
            .expect("a tensor");
        assert_eq!(tensor.dtype(), dtype);
    }
    assert_eq!(
        source.info("token_embedding").expect("listed").stored,
        "F16"
    );
    assert!(source.info("layers.4.v.bias").is_none());
}

#[test]
fn the_summary_counts_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = &write(folder.path(), Sdxl, Layout::SingleFile, Stored::F16, SEED)[0];
    let checkpoint = Checkpoint::open(path).expect("SDXL");
    let summary = checkpoint.summary();
    assert_eq!(
        (summary.container, summary.family),
        (Container::Safetensors, Some(Sdxl))
    );
    let [l, g] = &summary.encoders[..] else {
        panic!("two encoders")
    };
    assert_eq!(
        (l.width, l.n_layers, l.positions, l.projection),
        (128, 3, 77, false)
    );
    assert_eq!(
        (g.width, g.n_layers, g.vocabulary, g.projection),
        (256, 4, 49408, true)
    );
    assert_eq!(l.stored.get("F16"), Some(&(4 + 16 * 3)));
    assert_eq!(g.stored.get("F16"), Some(&(5 + 12 * 4)));
    assert_eq!(g.root, "conditioner.embedders.1.model.");
    assert!(l.problems.is_empty() && g.problems.is_empty());
    let ignored = &summary.report.ignored;
    let count = |class: &str| ignored.get(class).copied().unwrap_or(0);
    assert_eq!(
        (
            count("unet"),
            count("vae"),
            count("position_ids"),
            count("logit_scale")
        ),
        (4, 1, 1, 1)
    );
    let n_ignored: usize = ignored.values().sum();
    assert_eq!(summary.report.used.len() + n_ignored, summary.n_tensors);
    assert_eq!(
        summary.n_bytes,
        std::fs::metadata(path).expect("there").len()
    );
    assert!(
        summary.report.notes.is_empty(),
        "{:?}",
        summary.report.notes
    );
}

/// The fingerprint is of the header and a sample of the values: another type or other values give
/// another one, another place of the file does not.
#[test]
fn fingerprints() {
    let print = |stored, seed| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = &write(folder.path(), Sd1, Layout::SingleFile, stored, seed)[0];
        Checkpoint::open(path).expect("SD 1.x").fingerprint()
    };
    let one = print(Stored::F32, SEED);
    assert_eq!(one.len(), 64);
    assert_eq!(one, print(Stored::F32, SEED));
    assert_ne!(one, print(Stored::F32, SEED + 1));
    assert_ne!(one, print(Stored::F16, SEED));
}

/// Encoders of a folder whose refiner keeps G in the first slot, and of one slot given directly.
#[test]
fn encoders_in_unusual_slots() {
    let folder = tempfile::tempdir().expect("a folder");
    let encoder = EncoderId::OpenClipG;
    checkpoints::text_encoder(
        &folder.path().join("text_encoder"),
        encoder,
        Stored::F16,
        SEED,
    );
    let index = r#"{"_class_name": "StableDiffusionXLImg2ImgPipeline",
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "text_encoder_2": [null, null]}"#;
    checkpoints::save_text(&folder.path().join("model_index.json"), index);
    let checkpoint = Checkpoint::open(folder.path()).expect("a refiner");
    assert_eq!(
        (checkpoint.family(), checkpoint.encoders()),
        (Some(Refiner), vec![encoder])
    );
    let checkpoint = Checkpoint::open(&folder.path().join("text_encoder")).expect("one encoder");
    assert_eq!(
        (checkpoint.family(), checkpoint.candidates()),
        (None, &[Refiner, Sdxl][..])
    );
    assert_eq!(checkpoint.hidden_act(encoder), Some("gelu"));
}

/// Checkpoints of SD 3 hold L and G too; they are read, but only a caller can name a family.
#[test]
fn encoders_of_other_families() {
    let folder = tempfile::tempdir().expect("a folder");
    let (l, g) = (EncoderId::ClipL, EncoderId::OpenClipG);
    let mut entries = Vec::new();
    for encoder in [l, g] {
        let prefix = format!("text_encoders.{encoder}.transformer.");
        let source = source(encoder, SEED);
        entries.extend(huggingface(
            &source,
            &prefix,
            "text_model.",
            Projection::Linear,
            Stored::F16,
        ));
    }
    entries.push(Entry::filled(
        "text_encoders.t5xxl.transformer.shared.weight",
        Stored::F16,
        &[8, 8],
        1.0,
    ));
    let path = save(&folder.path().join("sd3.safetensors"), &entries);
    let checkpoint = Checkpoint::open(&path).expect("two encoders");
    assert_eq!(
        (checkpoint.family(), checkpoint.candidates()),
        (None, &[][..])
    );
    assert_eq!(checkpoint.layout(g).map(Id::id), Some("C6"));
    check_equal(
        &*checkpoint.encoder(l).expect("L"),
        &source(l, SEED),
        Stored::F16,
    );
    check_equal(
        &*checkpoint.encoder(g).expect("G"),
        &source(g, SEED),
        Stored::F16,
    );
    let parts = [checkpoint];
    assert_eq!(
        combine(&parts, None).expect_err("no family").kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(combine(&parts, Some(Sdxl)).expect("named").0, Sdxl);
}
