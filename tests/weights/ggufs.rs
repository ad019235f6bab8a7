//! Text encoders in GGUF: every quantization, stable-diffusion.cpp's names, and kept as they are.

use std::path::Path;

use sd_conditioner::candle_core::quantized::GgmlDType;
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::weights::{Checkpoint, Container, EncoderId, Layout};
use sd_conditioner::{Conditioner, Family};

use super::layouts::check_equal;
use crate::support::checkpoints::{self, Projection, huggingface, open_clip, source};
use crate::support::close::bits;
use crate::support::entries::{Entry, Stored};
use crate::support::ggufs::{Line, QUANTIZED, converted, is_quantized, plain, quantize, save};

use EncoderId::{ClipL, OpenClipG, OpenClipH};

const SEED: u64 = 73;

fn sd1(stored: Stored) -> Vec<Entry> {
    let root = "cond_stage_model.transformer.";
    let source = source(ClipL, SEED);
    huggingface(&source, root, "text_model.", Projection::None, stored)
}

fn plain_lines(entries: &[Entry]) -> Vec<Line> {
    entries.iter().map(plain).collect()
}

#[test]
fn plain_types() {
    let folder = tempfile::tempdir().unwrap();
    for stored in [Stored::F32, Stored::F16, Stored::Bf16, Stored::F64] {
        let path = save(&folder.path().join("x.gguf"), &plain_lines(&sd1(stored)));
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.container(), Container::Gguf);
        assert_eq!(checkpoint.family(), Some(Family::Sd1));
        let want = source(ClipL, SEED).without_projection();
        check_equal(&*checkpoint.encoder(ClipL).unwrap(), &want, stored);
    }
}

/// Each type gives what candle's own blocks expand to, bit for bit. G's width holds every block.
#[test]
fn every_quantization() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(OpenClipG, SEED);
    let entries = huggingface(&source, "", "text_model.", Projection::Linear, Stored::F16);
    for (_, dtype) in QUANTIZED {
        let path = save(&folder.path().join("g.gguf"), &converted(&entries, dtype));
        let checkpoint = Checkpoint::open(&path).unwrap();
        let read = checkpoint.encoder(OpenClipG).unwrap();
        let mut n_quantized = 0;
        for (name, file) in [
            (
                "layers.0.q.weight",
                "text_model.encoder.layers.0.self_attn.q_proj.weight",
            ),
            (
                "layers.3.fc2.weight",
                "text_model.encoder.layers.3.mlp.fc2.weight",
            ),
            ("projection", "text_projection.weight"),
        ] {
            let entry = entries.iter().find(|entry| entry.name == file).unwrap();
            assert!(is_quantized(entry, dtype), "{dtype:?}");
            let want = quantize(entry, dtype).dequantize(&Device::Cpu).unwrap();
            let ours = read.load(name, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(bits(&ours), bits(&want), "{dtype:?} {name}");
            let kept = read.load_quantized(name, &Device::Cpu).unwrap().unwrap();
            assert_eq!(kept.dtype(), dtype);
            n_quantized += 1;
        }
        assert_eq!(n_quantized, 3);
        assert!(
            read.load_quantized("token_embedding", &Device::Cpu)
                .unwrap()
                .is_none()
        );
        let stored = &checkpoint.summary().encoders[0].stored;
        assert_eq!(stored.len(), 2, "{stored:?}");
    }
}

/// stable-diffusion.cpp with name conversion: fused attention among transformers' names, and the
/// second encoder under a number.
#[test]
fn renamed_by_stable_diffusion_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let g = source(OpenClipG, SEED);
    let root = "cond_stage_model.1.transformer.text_model.";
    let second = open_clip(&g, "", Projection::Bare, Stored::F16);
    let mut entries = huggingface(
        &source(ClipL, SEED),
        "cond_stage_model.transformer.",
        "text_model.",
        Projection::None,
        Stored::F16,
    );
    for mut entry in second {
        if entry.name == "logit_scale" {
            continue;
        }
        entry.name = format!("{root}{}", renamed(&entry.name));
        entries.push(entry);
    }
    for dtype in [None, Some(GgmlDType::Q8_0)] {
        let lines = dtype.map_or_else(|| plain_lines(&entries), |dtype| converted(&entries, dtype));
        let checkpoint = Checkpoint::open(save(&folder.path().join("x.gguf"), &lines)).unwrap();
        assert_eq!(checkpoint.family(), Some(Family::Sdxl));
        assert_eq!(checkpoint.layout(OpenClipG), Some(Layout::SdCpp));
        let read = checkpoint.encoder(OpenClipG).unwrap();
        if dtype.is_none() {
            check_equal(&*read, &g, Stored::F16);
        }
        let report = checkpoint.report();
        assert!(report.unused.is_empty(), "{:?}", report.unused);
        let noted = |note: &String| note.contains("projection from GGUF");
        assert!(report.notes.iter().any(noted), "{:?}", report.notes);
        // The thirds of a fused matrix are whole rows of blocks.
        let fused = entries
            .iter()
            .find(|entry| entry.name.ends_with("layers.1.self_attn.in_proj.weight"));
        if let Some(dtype) = dtype {
            let all = quantize(fused.unwrap(), dtype)
                .dequantize(&Device::Cpu)
                .unwrap();
            for (third, name) in ["q", "k", "v"].into_iter().enumerate() {
                let ours = read.load(&format!("layers.1.{name}.weight"), DType::F32, &Device::Cpu);
                let want = all.narrow(0, third * 256, 256).unwrap();
                assert_eq!(bits(&ours.unwrap()), bits(&want), "{name}");
            }
        }
    }
}

/// `open_clip`'s names as stable-diffusion.cpp writes them in transformers' style.
fn renamed(name: &str) -> String {
    let pairs = [
        ("transformer.resblocks.", "encoder.layers."),
        ("attn.in_proj_", "self_attn.in_proj."),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
        ("token_embedding", "embeddings.token_embedding"),
        (
            "positional_embedding",
            "embeddings.position_embedding.weight",
        ),
        ("ln_final", "final_layer_norm"),
    ];
    pairs
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// A type that is not known costs nothing outside the text encoder, and is named inside it.
#[test]
fn types_that_are_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let mut lines = plain_lines(&sd1(Stored::F16));
    lines.push(Line {
        name: "model.diffusion_model.out.2.weight".to_owned(),
        shape: vec![4, 256],
        kind: 39,
        bytes: vec![1; 544],
    });
    let checkpoint = Checkpoint::open(save(&path, &lines)).unwrap();
    checkpoint.encoder(ClipL).unwrap();
    let notes = checkpoint.report().notes.join("\n");
    assert!(
        notes.contains("1 tensors are of types that are not known"),
        "{notes}"
    );
    let at = lines
        .iter()
        .position(|line| line.name.ends_with("layers.1.mlp.fc1.weight"));
    lines[at.unwrap()].kind = 39;
    let checkpoint = Checkpoint::open(save(&path, &lines)).unwrap();
    let error = checkpoint.encoder(ClipL).err().unwrap().to_string();
    let words = ["layers.1.mlp.fc1.weight", "number 39 of ggml"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

/// Kept quantized, an encoder gives the same bits as expanded at once.
#[test]
fn kept_quantized_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let encode = |path: &Path, keep: bool| {
        let builder = Conditioner::builder().family(Family::Sd2);
        let builder = if keep {
            builder.keep_quantized()
        } else {
            builder
        };
        let text = builder.open(path).unwrap();
        bits(text.encode("a (red:1.3) car, rain").unwrap().context())
    };
    let entries = open_clip(
        &source(OpenClipH, SEED),
        "cond_stage_model.model.",
        Projection::Bare,
        Stored::F16,
    );
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q4_0] {
        let path = save(&folder.path().join("h.gguf"), &converted(&entries, dtype));
        let (expanded, kept) = (encode(&path, false), encode(&path, true));
        assert_eq!(expanded, kept, "{dtype:?}");
    }
    let plain = save(&folder.path().join("plain.gguf"), &plain_lines(&entries));
    assert_eq!(encode(&plain, false), encode(&plain, true));
    let folder = checkpoints::write(
        folder.path(),
        Family::Sd2,
        checkpoints::Layout::SingleFile,
        Stored::F16,
        SEED,
    );
    assert_eq!(encode(&folder[0], true), encode(&plain, true));
}
