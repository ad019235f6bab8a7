//! One synthetic checkpoint in every layout.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sd_conditioner::Family::{self, Refiner, Sd1, Sd2, Sdxl};
use sd_conditioner::candle_core;
use sd_conditioner::weights::Layout as Id;
use sd_conditioner::weights::{Checkpoint, Container, TensorSource};

use crate::support::checkpoints::{Layout, diffusers_source, source, write};
use crate::support::entries::Stored;
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
