//! A product and what scales it, against matrices of f64; `kinds.rs` has the other kinds of change.

use sd_conditioner::weights::Lora;
use sd_conditioner::{Conditioner, Family};

use super::plain::Plain;
use super::{Written, entry, scalar, tensors, tiny, write, write_with};
use crate::support::entries::Entry;

/// The module that most tests change: 512 rows, 128 columns.
pub(super) const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";
pub(super) const WEIGHT: &str = "clip_l.layers.0.fc1.weight";
pub(super) const BIAS: &str = "clip_l.layers.0.fc1.bias";
pub(super) const OUT: usize = 512;
pub(super) const IN: usize = 128;

/// f32 against f64, over a few hundred products.
const BAR: f64 = 3e-6;

/// A square one, for kinds that turn or are ambiguous.
pub(super) const SQUARE: &str = "lora_te_text_model_encoder_layers_1_self_attn_v_proj";
pub(super) const SQUARE_WEIGHT: &str = "clip_l.layers.1.v.weight";

pub(super) fn of(module: &str, end: &str) -> String {
    format!("{module}.{end}")
}

/// One tensor before and after.
fn before_and_after(written: &Written, strength: f64, name: &str) -> (Plain, Plain) {
    let base = tiny(Family::Sd1);
    let changed = base.with_loras(&[written.at(strength)]).unwrap();
    let one = |text: &Conditioner| Plain::of(&tensors(text)[name]);
    (one(&base), one(&changed))
}

/// The file's change of a tensor must be `want`, given the tensor before.
#[track_caller]
pub(super) fn check(
    what: &str,
    entries: &[Entry],
    name: &str,
    want: impl Fn(&Plain, f64) -> Plain,
) {
    for strength in [1.0, 0.7, -0.4] {
        let (before, after) = before_and_after(&write(entries), strength, name);
        want(&before, strength).assert_near(&format!("{what} at {strength}"), &after, BAR);
    }
}

/// Down and up of rank 4.
pub(super) fn low_rank(module: &str, (out, columns): (usize, usize)) -> Vec<Entry> {
    vec![
        entry(&of(module, "lora_down.weight"), &[4, columns], 0.1),
        entry(&of(module, "lora_up.weight"), &[out, 4], 0.3),
    ]
}

/// Their product.
pub(super) fn product(module: &str, (out, columns): (usize, usize)) -> Plain {
    let down = Plain::stored(&of(module, "lora_down.weight"), 4, columns, 0.1);
    Plain::stored(&of(module, "lora_up.weight"), out, 4, 0.3).times(&down)
}

#[test]
fn lora_is_strength_times_alpha_over_rank() {
    let delta = product(MODULE, (OUT, IN));
    for (alpha, factor) in [
        (None, 1.0),
        (Some(2.0), 0.5),
        (Some(-8.0), -2.0),
        (Some(0.0), 0.0),
    ] {
        let mut entries = low_rank(MODULE, (OUT, IN));
        entries.extend(alpha.map(|alpha| scalar(&of(MODULE, "alpha"), alpha)));
        check(
            &format!("alpha {alpha:?}"),
            &entries,
            WEIGHT,
            |before, strength| before.plus(&delta.scaled(strength * factor)),
        );
    }
}

#[test]
fn a_scale_replaces_alpha() {
    let mut entries = low_rank(MODULE, (OUT, IN));
    entries.push(scalar(&of(MODULE, "alpha"), 2.0));
    entries.push(scalar(&of(MODULE, "scale"), 0.25));
    let delta = product(MODULE, (OUT, IN));
    check("scale", &entries, WEIGHT, |before, strength| {
        before.plus(&delta.scaled(strength * 0.25))
    });
}

#[test]
fn convolutions_of_one_point_are_matrices() {
    let entries = [
        entry(&of(MODULE, "lora_down.weight"), &[4, IN, 1, 1], 0.1),
        entry(&of(MODULE, "lora_up.weight"), &[OUT, 4, 1, 1], 0.3),
    ];
    let delta = product(MODULE, (OUT, IN));
    check("LoCon", &entries, WEIGHT, |before, strength| {
        before.plus(&delta.scaled(strength))
    });
}

#[test]
fn a_bias_beside_up_is_scaled_alike() {
    let mut entries = low_rank(MODULE, (OUT, IN));
    entries.push(entry(&of(MODULE, "lora_up.bias"), &[OUT], 0.2));
    entries.push(scalar(&of(MODULE, "alpha"), 2.0));
    let bias = Plain::stored(&of(MODULE, "lora_up.bias"), OUT, 1, 0.2);
    check("bias", &entries, BIAS, |before, strength| {
        before.plus(&bias.scaled(strength * 0.5))
    });
}

/// `LyCORIS` around a text encoder writes no more than the path inside it.
#[test]
fn lycoris_names_no_encoder() {
    for module in [
        "lycoris_text_model_encoder_layers_0_mlp_fc1",
        "lycoris_encoder_layers_0_mlp_fc1",
    ] {
        let delta = product(module, (OUT, IN));
        check(
            module,
            &low_rank(module, (OUT, IN)),
            WEIGHT,
            |before, strength| before.plus(&delta.scaled(strength)),
        );
    }
    let mut entries = low_rank("lycoris_down_blocks_0_attentions_0_proj_in", (OUT, IN));
    entries.extend(low_rank("lycoris_encoder_hid_proj", (OUT, IN)));
    let report = write(&entries).open().unwrap().report();
    assert_eq!(report.skipped.get("unet"), Some(&1));
    let unknown =
        ["lora_down", "lora_up"].map(|end| format!("lycoris_encoder_hid_proj.{end}.weight"));
    assert_eq!(report.unknown, unknown);
}

/// α / r and α / √r from the header and from the file beside, with another alpha for one module.
#[test]
fn peft_says_alpha_elsewhere() {
    let (first, second) = (
        "encoder.layers.0.mlp.fc1",
        "encoder.layers.1.self_attn.v_proj",
    );
    let header = r#"{"text_encoder.r": 4, "text_encoder.lora_alpha": 8,
        "text_encoder.use_rslora": true, "text_encoder.alpha_pattern": {"layers.1.self_attn.v_proj": 2}}"#;
    let named = |module: &str| format!("text_encoder.text_model.{module}");
    let mut entries = low_rank(&named(first), (OUT, IN));
    entries.extend(low_rank(&named(second), (IN, IN)));
    let entries: Vec<Entry> = entries.into_iter().map(as_peft).collect();
    let written = write_with(&entries, &[("lora_adapter_metadata", header)]);
    let delta = product(&named(first), (OUT, IN));
    let (before, after) = before_and_after(&written, 1.0, WEIGHT);
    before
        .plus(&delta.scaled(8.0 / 2.0))
        .assert_near("rslora", &after, BAR);
    let delta = product(&named(second), (IN, IN));
    let (before, after) = before_and_after(&written, 1.0, SQUARE_WEIGHT);
    before
        .plus(&delta.scaled(2.0 / 2.0))
        .assert_near("pattern", &after, BAR);
}

#[test]
fn an_adapters_folder_says_alpha_in_its_configuration() {
    let module = "base_model.model.text_model.encoder.layers.0.mlp.fc1";
    let entries: Vec<Entry> = low_rank(module, (OUT, IN))
        .into_iter()
        .map(as_peft)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("adapter_model.safetensors");
    crate::support::entries::save(&file, &entries);
    let config = r#"{"r": 64, "lora_alpha": 6, "use_rslora": false}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let base = tiny(Family::Sd1);
    let lora = Lora::open(folder.path()).unwrap();
    let after = Plain::of(&tensors(&base.with_loras(&[lora.at(1.0)]).unwrap())[WEIGHT]);
    let before = Plain::of(&tensors(&base)[WEIGHT]);
    // The rank is 4 whatever the configuration says.
    let want = before.plus(&product(module, (OUT, IN)).scaled(6.0 / 4.0));
    want.assert_near("adapter", &after, BAR);
    // Older versions of PEFT call the file so, and its configuration counts as well.
    std::fs::rename(&file, folder.path().join("adapter_model.bin")).unwrap();
    let lora = Lora::open(folder.path()).unwrap();
    let after = Plain::of(&tensors(&base.with_loras(&[lora.at(1.0)]).unwrap())[WEIGHT]);
    want.assert_near("older adapter", &after, BAR);
}

/// `LoHa` and `LoKr` of PEFT have `alpha` in the configuration and no tensor of it; PEFT's own merge
/// multiplies by α / r, for `LoKr` of two whole factors, too.
#[test]
fn pefts_lycoris_says_alpha_in_its_configuration() {
    let named = |end: &str| {
        let module = "base_model.model.text_model.encoder.layers.0.mlp.fc1";
        of(module, end)
    };
    let plain = |end: &str, (rows, columns): (usize, usize)| {
        (
            entry(&named(end), &[rows, columns], 0.3),
            Plain::stored(&named(end), rows, columns, 0.3),
        )
    };
    let (w1a, a) = plain("hada_w1_a", (OUT, 4));
    let (w1b, b) = plain("hada_w1_b", (4, IN));
    let (w2a, c) = plain("hada_w2_a", (OUT, 4));
    let (w2b, d) = plain("hada_w2_b", (4, IN));
    let second = c.times(&d);
    let config = r#"{"peft_type": "LOHA", "r": 4, "alpha": 2}"#;
    check_adapter(
        &[w1a, w1b, w2a, w2b],
        config,
        &a.times(&b)
            .map(|row, column, one| one * second.at(row, column) * 0.5),
    );
    let (w1, a) = plain("lokr_w1", (8, 8));
    let (w2, b) = plain("lokr_w2", (64, 16));
    let whole = [w1, w2];
    let config = r#"{"peft_type": "LOKR", "r": 64, "alpha": 16}"#;
    check_adapter(&whole, config, &a.kron(&b).scaled(0.25));
    let config = r#"{"peft_type": "LOKR", "r": 64, "alpha": 16,
        "rank_pattern": {"layers.0.mlp.fc1": 32}, "alpha_pattern": {"fc1": 96}}"#;
    check_adapter(&whole, config, &a.kron(&b).scaled(3.0));
    check_adapter(&whole, r#"{"r": 64, "alpha": 16}"#, &a.kron(&b));
}

/// Without it every factor would be wrong, so it is not passed over.
#[cfg(unix)]
#[test]
fn an_adapters_configuration_that_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let module = "base_model.model.text_model.encoder.layers.0.mlp.fc1";
    let entries = low_rank(module, (OUT, IN)).into_iter().map(as_peft);
    let file = folder.path().join("adapter_model.safetensors");
    crate::support::entries::save(&file, &entries.collect::<Vec<_>>());
    let config = folder.path().join("adapter_config.json");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &config).unwrap();
    let error = Lora::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("adapter_config.json") && error.contains("nowhere"),
        "{error}"
    );
    std::fs::remove_file(&config).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&config).status();
    assert!(made.unwrap().success());
    let error = Lora::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("adapter_config.json: this is not a file"),
        "{error}"
    );
}

/// The change that an adapter's folder makes.
#[track_caller]
fn check_adapter(entries: &[Entry], config: &str, delta: &Plain) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("adapter_model.safetensors");
    crate::support::entries::save(&file, entries);
    std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let base = tiny(Family::Sd1);
    let lora = Lora::open(folder.path()).unwrap();
    let after = Plain::of(&tensors(&base.with_loras(&[lora.at(1.0)]).unwrap())[WEIGHT]);
    let before = Plain::of(&tensors(&base)[WEIGHT]);
    before.plus(delta).assert_near(config, &after, BAR);
}

/// PEFT's ends of names, with the values of kohya's.
fn as_peft(mut entry: Entry) -> Entry {
    entry.name = entry
        .name
        .replace("lora_down", "lora_A")
        .replace("lora_up", "lora_B");
    entry
}

#[test]
fn peft_changes_embeddings() {
    let module = "text_encoder.text_model.embeddings.token_embedding";
    let (a, b) = (
        of(module, "lora_embedding_A"),
        of(module, "lora_embedding_B"),
    );
    let vocabulary = 49408;
    let entries = [entry(&a, &[2, vocabulary], 0.1), entry(&b, &[IN, 2], 0.1)];
    let product = Plain::stored(&b, IN, 2, 0.1).times(&Plain::stored(&a, 2, vocabulary, 0.1));
    let (before, after) = before_and_after(&write(&entries), 0.7, "clip_l.token_embedding");
    let want = before.plus(&product.transposed().scaled(0.7));
    want.assert_near("embedding", &after, BAR);
}
