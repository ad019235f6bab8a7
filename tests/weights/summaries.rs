//! What a checkpoint tells of itself: order, types, counts, fingerprint, and encoders in odd places.

use sd_conditioner::ErrorKind;
use sd_conditioner::Family::{Refiner, Sd1, Sd2, Sdxl};
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::weights::Layout as Id;
use sd_conditioner::weights::{Checkpoint, Container, EncoderId, combine};

use super::layouts::check_equal;
use crate::support::checkpoints::{self, Layout, Projection, huggingface, source, write};
use crate::support::entries::{Entry, Stored, save};

const SEED: u64 = 73;

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
    let checkpoint = Checkpoint::open(folder.path().join("text_encoder")).expect("one encoder");
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
