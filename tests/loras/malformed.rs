//! Broken files: a clear error each, nothing half applied.

use sd_conditioner::{ErrorKind, Family};

use super::{Written, entry, scalar, tiny, write, write_with};
use crate::support::entries::{Entry, Stored};

const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";
const OUT: usize = 512;
const IN: usize = 128;

fn t(end: &str, shape: &[usize]) -> Entry {
    entry(&format!("{MODULE}.{end}"), shape, 0.1)
}

fn alpha(value: f32) -> Entry {
    scalar(&format!("{MODULE}.alpha"), value)
}

fn down() -> Entry {
    t("lora_down.weight", &[4, IN])
}

fn up() -> Entry {
    t("lora_up.weight", &[OUT, 4])
}

/// What is in the file, the kind of the error, and words that it has.
type Row = (Vec<Entry>, ErrorKind, &'static [&'static str]);

#[track_caller]
fn check_refused(written: &Written, strength: f64, kind: ErrorKind, words: &[&str]) {
    let base = tiny(Family::Sd1);
    let result = written
        .open()
        .and_then(|lora| base.with_loras(&[lora.at(strength)]));
    let Err(error) = result else {
        panic!("accepted, but expected {kind:?} with {words:?}")
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.path().is_some(), "no path in: {error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

fn check(rows: Vec<Row>) {
    for (entries, kind, words) in rows {
        check_refused(&write(&entries), 1.0, kind, words);
    }
}

#[test]
fn halves_without_their_others() {
    let lonely: &[&str] = &["missing"];
    let lora = ErrorKind::Lora;
    check(vec![
        (vec![up()], lora, &["lora_up.weight", "missing"]),
        (
            vec![down(), alpha(4.0)],
            lora,
            &["lora_down.weight", "missing"],
        ),
        (vec![t("lora_A.weight", &[4, IN])], lora, lonely),
        (vec![t("lora_up.bias", &[OUT])], lora, lonely),
        (
            vec![t("hada_w1_a", &[OUT, 4]), t("hada_w1_b", &[4, IN])],
            lora,
            lonely,
        ),
        (
            vec![t("hada_w1_a", &[OUT, 4]), t("hada_w2_b", &[4, IN])],
            lora,
            lonely,
        ),
        (vec![t("lokr_w1", &[16, 8])], lora, lonely),
        (
            vec![t("lokr_w1", &[16, 8]), t("lokr_w2_a", &[32, 2])],
            lora,
            lonely,
        ),
        (
            vec![t("a1.weight", &[IN, 4]), t("a2.weight", &[4, IN])],
            lora,
            lonely,
        ),
        (vec![t("lora_embedding_A", &[4, IN])], lora, lonely),
        (vec![t("rescale", &[OUT, 1])], lora, lonely),
        (vec![t("on_input", &[])], lora, lonely),
        (vec![alpha(4.0)], lora, &["nothing but a scale"]),
        (vec![t("dora_scale", &[OUT, 1])], lora, &["DoRA around 0"]),
    ]);
}

#[test]
fn shapes_that_do_not_fit() {
    let lora = ErrorKind::Lora;
    let of =
        |down: &[usize], up: &[usize]| vec![t("lora_down.weight", down), t("lora_up.weight", up)];
    check(vec![
        (
            of(&[4, IN], &[OUT, 8]),
            lora,
            &["ranks 8 and 4 differ", "[4, 128]", "[512, 8]"],
        ),
        (
            of(&[4, 768], &[3072, 4]),
            lora,
            &["[3072, 768]", "[512, 128]", "clip_l"],
        ),
        (of(&[4, IN], &[IN, 4]), lora, &["[128, 128]", "[512, 128]"]),
        (of(&[0, IN], &[OUT, 0]), lora, &["empty", "rank"]),
        (of(&[4, IN, 3, 3], &[OUT, 4, 1, 1]), lora, &["convolution"]),
        (of(&[4], &[OUT, 4]), lora, &["matrix was expected"]),
        (
            vec![t("diff", &[IN, OUT])],
            lora,
            &["[128, 512]", "[512, 128]"],
        ),
        (vec![t("diff_b", &[IN])], lora, &["[512]"]),
        (
            vec![t("lokr_w1", &[16, 8]), t("lokr_w2", &[16, 16])],
            lora,
            &["[256, 128]", "[512, 128]"],
        ),
        (
            vec![t("oft_blocks", &[8, 16, 16])],
            lora,
            &["[8, 16, 16]", "[512, 128]"],
        ),
        (
            vec![t("weight", &[OUT, 2]), t("on_input", &[])],
            lora,
            &["128 values"],
        ),
        (
            vec![down(), up(), t("dora_scale", &[IN, 1])],
            lora,
            &["[out, 1]"],
        ),
        (
            vec![
                t("a1.weight", &[IN, 4]),
                t("a2.weight", &[4, IN]),
                t("b1.weight", &[4, 4]),
                t("b2.weight", &[4, IN]),
            ],
            lora,
            &["fit in no order"],
        ),
    ]);
}

#[test]
fn a_huge_kronecker_product_is_not_made() {
    // Thousands by thousands out of two small factors, held against the encoder first.
    let factor = |end: &str| t(end, &[4096, 256]);
    let entries = [factor("lokr_w1"), factor("lokr_w2")];
    check_refused(
        &write(&entries),
        1.0,
        ErrorKind::Lora,
        &["[16777216, 65536]"],
    );
}

#[test]
fn numbers_that_are_none() {
    let (lora, value) = (ErrorKind::Lora, ErrorKind::TensorValue);
    let bad = |end: &str, value: f32| {
        let shape: &[usize] = if end.contains("down") {
            &[4, IN]
        } else {
            &[OUT, 4]
        };
        Entry::filled(&format!("{MODULE}.{end}"), Stored::F32, shape, value)
    };
    check(vec![
        (vec![down(), up(), alpha(f32::NAN)], lora, &["alpha", "NaN"]),
        (
            vec![down(), up(), alpha(f32::INFINITY)],
            lora,
            &["alpha", "inf"],
        ),
        (
            vec![down(), up(), t("alpha", &[2])],
            lora,
            &["one number", "[2]"],
        ),
        (
            vec![bad("lora_down.weight", f32::NAN), up()],
            value,
            &["NaN"],
        ),
        (
            vec![down(), bad("lora_up.weight", f32::INFINITY)],
            value,
            &["infinite"],
        ),
        (
            vec![bad("lora_down.weight", 1e30), bad("lora_up.weight", 1e30)],
            lora,
            &["leave the range", "layers.0.fc1.weight"],
        ),
        (
            vec![
                Entry::filled(
                    &format!("{MODULE}.lora_down.weight"),
                    Stored::I32,
                    &[4, IN],
                    1.0,
                ),
                up(),
            ],
            value,
            &["I32"],
        ),
    ]);
    let good = write(&[down(), up()]);
    for strength in [f64::NAN, f64::INFINITY] {
        check_refused(&good, strength, ErrorKind::Request, &["no finite number"]);
    }
}

#[test]
fn kinds_that_are_named_and_not_done() {
    let no = ErrorKind::Unsupported;
    check(vec![
        (vec![t("oft_blocks", &[2, 32, 16, 16])], no, &["BOFT"]),
        (
            vec![down(), up(), t("lora_mid.weight", &[4, 4, 3, 3])],
            no,
            &["Tucker"],
        ),
        (
            vec![t("hada_w1_a", &[OUT, 4]), t("hada_t1", &[4, 4, 3, 3])],
            no,
            &["Tucker"],
        ),
        (
            vec![down(), up(), t("reshape_weight", &[2])],
            no,
            &["reshape_weight"],
        ),
        (
            vec![down(), up(), t("bias_indices", &[1, 2])],
            no,
            &["sparse bias"],
        ),
        (
            vec![
                entry("text_encoder:0:up", &[OUT, 4], 0.1),
                entry("text_encoder:0:down", &[4, IN], 0.1),
            ],
            no,
            &["cloneofsimo"],
        ),
    ]);
}

#[test]
fn two_for_one_module() {
    let flat = "text_encoder.encoder.layers.0.mlp.fc1";
    let again = vec![
        down(),
        up(),
        entry(&format!("{flat}.lora_A.weight"), &[4, IN], 0.1),
        entry(&format!("{flat}.lora_B.weight"), &[OUT, 4], 0.1),
    ];
    let twice = vec![down(), up(), t("lora.down.weight", &[4, IN])];
    let both = vec![
        t("lokr_w1", &[16, 8]),
        t("lokr_w1_a", &[16, 2]),
        t("lokr_w1_b", &[2, 8]),
    ];
    check(vec![
        (again, ErrorKind::Lora, &["the same module"]),
        (twice, ErrorKind::Lora, &["two tensors of this kind"]),
        (both, ErrorKind::Lora, &["as a whole and as a product"]),
    ]);
}

#[test]
fn files_that_are_no_lora() {
    let no = ErrorKind::Lora;
    check(vec![
        (
            vec![entry("emb_params", &[1, IN], 0.1)],
            no,
            &["no LoRA", "embedding"],
        ),
        (
            vec![entry("cond_stage_model.x.weight", &[1, IN], 0.1)],
            no,
            &["no LoRA", "cond_stage_model"],
        ),
        (
            vec![entry("unet.conv_in.weight", &[1, IN], 0.1)],
            no,
            &["no LoRA"],
        ),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    for bytes in [&b""[..], &[0; 7], &[0; 64], b"<!DOCTYPE html><html></html>"] {
        std::fs::write(&path, bytes).unwrap();
        let error = sd_conditioner::weights::Lora::open(&path).unwrap_err();
        assert!(error.path().is_some(), "{error}");
    }
    assert!(sd_conditioner::weights::Lora::open(folder.path()).is_err());
}

/// Metadata are hints; broken ones are noted, not fatal.
#[test]
fn broken_metadata_is_a_note() {
    let base = tiny(Family::Sd1);
    for (text, word) in [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        (r#"{"text_encoder.lora_alpha": "four"}"#, "no number"),
        (
            r#"{"text_encoder.lora_alpha": 4, "text_encoder.alpha_pattern": {"(": 1}}"#,
            "ignored",
        ),
    ] {
        let written = write_with(&[down(), up()], &[("lora_adapter_metadata", text)]);
        let changed = base.with_loras(&[written.at(1.0)]).unwrap();
        let notes = &changed.lora_reports()[0].notes;
        assert!(
            notes.iter().any(|note| note.contains(word)),
            "{text}: {notes:?}"
        );
    }
}

/// A list of which one is broken gives an error and no conditioner.
#[test]
fn nothing_is_half_applied() {
    let (good, bad) = (write(&[down(), up()]), write(&[up()]));
    let base = tiny(Family::Sd1);
    let before = base.fingerprint().to_owned();
    assert!(base.with_loras(&[good.at(1.0), bad.at(1.0)]).is_err());
    assert_eq!(base.fingerprint(), before);
    assert!(base.lora_reports().is_empty());
}

#[test]
fn an_alpha_of_zero_is_told() {
    let base = tiny(Family::Sd1);
    let changed = base
        .with_loras(&[write(&[down(), up(), alpha(0.0)]).at(1.0)])
        .unwrap();
    let notes = &changed.lora_reports()[0].notes;
    assert!(
        notes.iter().any(|note| note.contains("alpha 0")),
        "{notes:?}"
    );
}
