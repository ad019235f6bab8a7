//! What each kind of change but the plain product does to a weight, against matrices of f64.

use super::formulas::{
    BIAS, IN, MODULE, OUT, SQUARE, SQUARE_WEIGHT, WEIGHT, check, low_rank, of, product,
};
use super::plain::Plain;
use super::{entry, scalar};
use crate::support::entries::{Entry, Stored};

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
