//! What each kind of change does to a weight, against matrices of f64.

use sd_conditioner::weights::Lora;
use sd_conditioner::{Conditioner, Family};

use super::plain::Plain;
use super::{Written, entry, scalar, tensors, tiny, write, write_with};
use crate::support::entries::{Entry, Stored};

/// The module that most tests change: 512 rows, 128 columns.
const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";
const WEIGHT: &str = "clip_l.layers.0.fc1.weight";
const BIAS: &str = "clip_l.layers.0.fc1.bias";
const OUT: usize = 512;
const IN: usize = 128;

/// f32 against f64, over a few hundred products.
const BAR: f64 = 3e-6;

/// A square one, for kinds that turn or are ambiguous.
const SQUARE: &str = "lora_te_text_model_encoder_layers_1_self_attn_v_proj";
const SQUARE_WEIGHT: &str = "clip_l.layers.1.v.weight";

fn of(module: &str, end: &str) -> String {
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
fn check(what: &str, entries: &[Entry], name: &str, want: impl Fn(&Plain, f64) -> Plain) {
    for strength in [1.0, 0.7, -0.4] {
        let (before, after) = before_and_after(&write(entries), strength, name);
        want(&before, strength).assert_near(&format!("{what} at {strength}"), &after, BAR);
    }
}

/// Down and up of rank 4.
fn low_rank(module: &str, (out, columns): (usize, usize)) -> Vec<Entry> {
    vec![
        entry(&of(module, "lora_down.weight"), &[4, columns], 0.1),
        entry(&of(module, "lora_up.weight"), &[out, 4], 0.3),
    ]
}

/// Their product.
fn product(module: &str, (out, columns): (usize, usize)) -> Plain {
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
fn loha_multiplies_two_products() {
    let part = |end: &str| of(MODULE, end);
    let entries = [
        entry(&part("hada_w1_a"), &[OUT, 4], 0.5),
        entry(&part("hada_w1_b"), &[4, IN], 0.5),
        entry(&part("hada_w2_a"), &[OUT, 3], 0.5),
        entry(&part("hada_w2_b"), &[3, IN], 0.5),
        scalar(&part("alpha"), 3.0),
    ];
    let half = |a: &str, b: &str, rank: usize| {
        let right = Plain::stored(&part(b), rank, IN, 0.5);
        Plain::stored(&part(a), OUT, rank, 0.5).times(&right)
    };
    let (one, two) = (
        half("hada_w1_a", "hada_w1_b", 4),
        half("hada_w2_a", "hada_w2_b", 3),
    );
    let delta = one.map(|row, column, cell| cell * two.at(row, column));
    check("LoHa", &entries, WEIGHT, |before, strength| {
        before.plus(&delta.scaled(strength * 3.0 / 4.0))
    });
}

/// Each factor whole or a product; the rank of the second counts, then that of the first.
#[test]
fn lokr_is_a_kronecker_product() {
    let part = |end: &str| of(MODULE, end);
    let alpha = || scalar(&part("alpha"), 3.0);
    let whole = |end: &str, rows: usize, columns: usize| entry(&part(end), &[rows, columns], 0.5);
    let stored = |end: &str, rows, columns| Plain::stored(&part(end), rows, columns, 0.5);
    let (w1, w2) = (stored("lokr_w1", 16, 8), stored("lokr_w2", 32, 16));
    let w1_product = stored("lokr_w1_a", 16, 2).times(&stored("lokr_w1_b", 2, 8));
    let w2_product = stored("lokr_w2_a", 32, 6).times(&stored("lokr_w2_b", 6, 16));
    let first = [whole("lokr_w1", 16, 8)];
    let second = [whole("lokr_w2", 32, 16)];
    let first_parts = [whole("lokr_w1_a", 16, 2), whole("lokr_w1_b", 2, 8)];
    let second_parts = [whole("lokr_w2_a", 32, 6), whole("lokr_w2_b", 6, 16)];
    let cases = [
        (&first[..], &second[..], w1.kron(&w2), 1.0),
        (&first, &second_parts, w1.kron(&w2_product), 3.0 / 6.0),
        (&first_parts, &second, w1_product.kron(&w2), 3.0 / 2.0),
        (
            &first_parts,
            &second_parts,
            w1_product.kron(&w2_product),
            3.0 / 6.0,
        ),
    ];
    for (one, two, delta, factor) in cases {
        let mut entries = [one, two].concat();
        entries.push(alpha());
        check("LoKr", &entries, WEIGHT, |before, strength| {
            before.plus(&delta.scaled(strength * factor))
        });
    }
}

#[test]
fn glora_in_both_orders() {
    let part = |end: &str| of(MODULE, end);
    let scale = 0.2;
    let stored = |end: &str, rows, columns| Plain::stored(&part(end), rows, columns, scale);
    let newer = [
        entry(&part("a1.weight"), &[IN, 4], scale),
        entry(&part("a2.weight"), &[4, IN], scale),
        entry(&part("b1.weight"), &[OUT, 4], scale),
        entry(&part("b2.weight"), &[4, IN], scale),
        scalar(&part("alpha"), 2.0),
    ];
    check("GLoRA", &newer, WEIGHT, |before, strength| {
        let turned = before
            .times(&stored("a1.weight", IN, 4))
            .times(&stored("a2.weight", 4, IN));
        let added = stored("b1.weight", OUT, 4).times(&stored("b2.weight", 4, IN));
        before.plus(&added.plus(&turned).scaled(strength * 0.5))
    });
    let older = [
        entry(&part("a2.weight"), &[IN, 4], scale),
        entry(&part("a1.weight"), &[4, IN], scale),
        entry(&part("b2.weight"), &[OUT, 4], scale),
        entry(&part("b1.weight"), &[4, IN], scale),
        scalar(&part("alpha"), 2.0),
    ];
    check("old GLoRA", &older, WEIGHT, |before, strength| {
        let turned = before
            .times(&stored("a2.weight", IN, 4))
            .times(&stored("a1.weight", 4, IN));
        let added = stored("b2.weight", OUT, 4).times(&stored("b1.weight", 4, IN));
        before.plus(&added.plus(&turned).scaled(strength * 0.5))
    });
}

#[test]
fn whole_differences() {
    let entries = [
        entry(&of(MODULE, "diff"), &[OUT, IN], 0.1),
        entry(&of(MODULE, "diff_b"), &[OUT], 0.1),
    ];
    let added = |end: &str, columns, before: &Plain, strength| {
        before.plus(&Plain::stored(&of(MODULE, end), OUT, columns, 0.1).scaled(strength))
    };
    check("diff", &entries, WEIGHT, |before, strength| {
        added("diff", IN, before, strength)
    });
    check("diff_b", &entries, BIAS, |before, strength| {
        added("diff_b", 1, before, strength)
    });
    let norm = "lora_te_text_model_encoder_layers_2_layer_norm1";
    let entries = [
        entry(&of(norm, "w_norm"), &[IN], 0.1),
        entry(&of(norm, "b_norm"), &[IN], 0.1),
    ];
    for (end, name) in [("w_norm", "ln1.weight"), ("b_norm", "ln1.bias")] {
        let name = format!("clip_l.layers.2.{name}");
        check(end, &entries, &name, |before, strength| {
            before.plus(&Plain::stored(&of(norm, end), IN, 1, 0.1).scaled(strength))
        });
    }
    let set = [entry(&of(MODULE, "set_weight"), &[OUT, IN], 0.1)];
    check("set_weight", &set, WEIGHT, |_, _| {
        Plain::stored(&of(MODULE, "set_weight"), OUT, IN, 0.1)
    });
}

#[test]
fn ia3_scales_columns_or_rows() {
    let scales = of(MODULE, "weight");
    for (on_input, length) in [(1.0, IN), (0.0, OUT)] {
        let entries = [
            entry(&scales, &[length], 0.5),
            Entry::filled(&of(MODULE, "on_input"), Stored::U8, &[], on_input),
        ];
        let stored = Plain::stored(&scales, length, 1, 0.5);
        check("(IA)³", &entries, WEIGHT, |before, strength| {
            before.map(|row, column, cell| {
                let at = if on_input > 0.0 { column } else { row };
                cell + strength * cell * stored.at(at, 0)
            })
        });
    }
}

/// Rows of each block turned by (I + Q)(I − Q)⁻¹, transposed.
#[test]
fn oft_turns_rows() {
    let (blocks, rescale) = (of(SQUARE, "oft_blocks"), of(SQUARE, "rescale"));
    let (k, b) = (8, 16);
    let all = Plain::stored(&blocks, k * b, b, 0.01);
    let skew = |block: usize| {
        Plain::new(
            b,
            b,
            (0..b * b).map(|at| {
                let (row, column) = (at / b, at % b);
                all.at(block * b + row, column) - all.at(block * b + column, row)
            }),
        )
    };
    let norm = (0..k)
        .flat_map(|block| skew(block).cells)
        .map(|cell| cell * cell)
        .sum::<f64>();
    let stored = Plain::stored(&rescale, IN, 1, 0.5);
    for (alpha, with_rescale) in [(0.0, false), (0.003, false), (0.003, true), (9.0, true)] {
        let mut entries = vec![
            entry(&blocks, &[k, b, b], 0.01),
            scalar(&of(SQUARE, "alpha"), alpha),
        ];
        if with_rescale {
            entries.push(entry(&rescale, &[IN, 1], 0.5));
        }
        let limit = f64::from(alpha) * 128.0;
        let short = if alpha > 0.0 && norm.sqrt() > limit {
            limit / norm.sqrt()
        } else {
            1.0
        };
        check(
            &format!("OFT {alpha} {with_rescale}"),
            &entries,
            SQUARE_WEIGHT,
            |before, strength| {
                let mut turned = Vec::new();
                for block in 0..k {
                    let q = skew(block).scaled(short);
                    let one = q.map(|row, column, _| f64::from(u8::from(row == column)));
                    let back = one.plus(&q.scaled(-1.0)).inverse_near_one();
                    let r = one.plus(&q).times(&back);
                    let rows = before.cells[block * b * IN..(block + 1) * b * IN]
                        .iter()
                        .copied();
                    turned.extend(r.transposed().times(&Plain::new(b, IN, rows)).cells);
                }
                let turned = Plain::new(IN, IN, turned).map(|row, _, cell| {
                    if with_rescale {
                        cell * stored.at(row, 0)
                    } else {
                        cell
                    }
                });
                before.plus(&turned.plus(&before.scaled(-1.0)).scaled(strength))
            },
        );
    }
}

#[test]
fn dora_sets_the_lengths_of_rows_or_columns() {
    let delta = product(MODULE, (OUT, IN)).scaled(0.5);
    for (shape, by_row) in [
        (vec![OUT, 1], true),
        (vec![OUT], true),
        (vec![1, IN], false),
    ] {
        let name = of(MODULE, "dora_scale");
        let mut entries = low_rank(MODULE, (OUT, IN));
        entries.push(scalar(&of(MODULE, "alpha"), 2.0));
        entries.push(entry(&name, &shape, 1.0));
        let length = shape.iter().product();
        let lengths = Plain::stored(&name, length, 1, 1.0);
        check(
            &format!("DoRA {shape:?}"),
            &entries,
            WEIGHT,
            |before, strength| {
                let moved = before.plus(&delta);
                let norms = if by_row {
                    moved.norms()
                } else {
                    moved.transposed().norms()
                };
                before.map(|row, column, cell| {
                    let at = if by_row { row } else { column };
                    let scaled = moved.at(row, column) * lengths.at(at, 0) / norms[at];
                    cell + strength * (scaled - cell)
                })
            },
        );
    }
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
