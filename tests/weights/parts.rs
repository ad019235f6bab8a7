//! Encoders in files of their own, put together.

use std::path::Path;

use sd_conditioner::weights::{Checkpoint, EncoderId, SyntheticSize, combine};
use sd_conditioner::{Conditioner, Error, ErrorKind, Family};

use super::check_refused;
use crate::support::checkpoints::{Layout, Projection, huggingface, source, write};
use crate::support::entries::{Stored, save_sparse};

const L: EncoderId = EncoderId::ClipL;
const H: EncoderId = EncoderId::OpenClipH;
const G: EncoderId = EncoderId::OpenClipG;

/// One encoder's file, of zeros; G has its projection.
fn part(folder: &Path, name: &str, encoder: EncoderId) -> Checkpoint {
    let projection = if encoder == G {
        Projection::Linear
    } else {
        Projection::None
    };
    let entries = huggingface(
        &source(encoder, 1),
        "",
        "text_model.",
        projection,
        Stored::F16,
    );
    Checkpoint::open(save_sparse(&folder.join(name), &entries)).expect("one encoder")
}

fn together(
    encoders: &[EncoderId],
    wanted: Option<Family>,
) -> Result<(Family, Vec<EncoderId>), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let names = encoders
        .iter()
        .enumerate()
        .map(|(index, encoder)| (format!("{index}.safetensors"), encoder));
    let parts: Vec<_> = names
        .map(|(name, encoder)| part(folder.path(), &name, *encoder))
        .collect();
    let (family, sources) = combine(&parts, wanted)?;
    Ok((
        family,
        sources.into_iter().map(|(encoder, _)| encoder).collect(),
    ))
}

#[track_caller]
fn check(encoders: &[EncoderId], wanted: Option<Family>, family: Family) {
    let found = together(encoders, wanted).expect("a family");
    assert_eq!(found, (family, family.encoders().to_vec()));
}

#[test]
fn families_of_parts() {
    check(&[L], None, Family::Sd1);
    check(&[H], None, Family::Sd2);
    check(&[G], None, Family::Refiner);
    check(&[L, G], None, Family::Sdxl);
    check(&[G, L], None, Family::Sdxl);
    check(&[G], Some(Family::Refiner), Family::Refiner);
    check(&[L, G], Some(Family::Sdxl), Family::Sdxl);
}

/// Parts that are kept apart can be put together in several ways.
#[test]
fn parts_may_be_cloned() {
    let folder = tempfile::tempdir().unwrap();
    let first = part(folder.path(), "l", EncoderId::ClipL);
    let second = part(folder.path(), "g", EncoderId::OpenClipG);
    let (family, _) = combine(&[first.clone(), second.clone()], None).unwrap();
    assert_eq!(family, Family::Sdxl);
    assert_eq!(combine(&[first], None).unwrap().0, Family::Sd1);
    assert_eq!(combine(&[second], None).unwrap().0, Family::Refiner);
}

#[test]
fn parts_that_make_no_family() {
    let (missing, mismatch) = (ErrorKind::MissingTensor, ErrorKind::Mismatch);
    check_refused(
        together(&[L], Some(Family::Sdxl)),
        missing,
        &["sdxl needs", "clip_g", "there is clip_l"],
    );
    check_refused(together(&[G], Some(Family::Sdxl)), missing, &["clip_l"]);
    check_refused(together(&[L], Some(Family::Sd2)), missing, &["clip_h"]);
    check_refused(
        together(&[L, L], None),
        mismatch,
        &["two files for clip_l", "0.safetensors"],
    );
    check_refused(together(&[H], Some(Family::Sd1)), mismatch, &["sd2", "sd1"]);
    check_refused(together(&[L, H], None), mismatch, &["clip_h"]);
    check_refused(
        together(&[L, G], Some(Family::Sd1)),
        mismatch,
        &["sdxl", "sd1"],
    );
    let error = together(&[], None).expect_err("nothing to combine");
    assert_eq!(error.kind(), ErrorKind::Request);
}

#[test]
fn second_encoders_need_their_projection() {
    let folder = tempfile::tempdir().expect("a folder");
    let entries = huggingface(
        &source(G, 1),
        "",
        "text_model.",
        Projection::None,
        Stored::F16,
    );
    let path = save_sparse(&folder.path().join("g.safetensors"), &entries);
    let checkpoint = Checkpoint::open(&path).expect("G");
    assert!(
        checkpoint
            .report()
            .notes
            .iter()
            .any(|note| note.contains("text_projection.weight"))
    );
    check_refused(
        combine(&[checkpoint], None),
        ErrorKind::MissingTensor,
        &["text_projection", "pooled"],
    );
}

#[test]
fn one_file_with_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = write(
        folder.path(),
        Family::Sdxl,
        Layout::SingleFile,
        Stored::F16,
        1,
    );
    let checkpoint = Checkpoint::open(&paths[0]).expect("SDXL");
    let (family, encoders) = combine(&[checkpoint], None).expect("SDXL");
    assert_eq!((family, encoders.len()), (Family::Sdxl, 2));
}

/// The whole way: what a file gives is what its weights give.
#[test]
fn a_conditioner_opens_every_usual_layout() {
    for (family, layout) in [
        (Family::Sd1, Layout::SingleFile),
        (Family::Sd2, Layout::Diffusers),
        (Family::Sdxl, Layout::SingleFile),
        (Family::Refiner, Layout::OpenClip),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = write(folder.path(), family, layout, Stored::F32, 1);
        let opened = Conditioner::open(&paths[0]).expect("a known layout");
        let builder = Conditioner::builder();
        let made = builder
            .random_weights(family, SyntheticSize::Tiny, 1)
            .expect("tiny");
        let context = |conditioner: &Conditioner| {
            let conditioning = conditioner.encode("a lighthouse at dusk").expect("encodes");
            let values = conditioning
                .context()
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>());
            values.expect("f32")
        };
        assert_eq!(opened.family(), family);
        let same = context(&opened)
            .iter()
            .zip(context(&made))
            .all(|(one, two)| one.to_bits() == two.to_bits());
        assert!(same, "{family} {layout:?}");
    }
}
