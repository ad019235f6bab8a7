//! The names of `open_clip` and OpenAI's CLIP, below the tower's root: q, k and v stacked in one
//! `in_proj` (an underscore before `weight`, no dot), the projection a bare `[width, projected]`.

use super::names::{Naming, Part};

/// The table; the projection is searched for separately because it is transposed.
pub(crate) const NAMING: Naming = Naming {
    outer: &[
        ("token_embedding", TOKEN_EMBEDDING),
        ("position_embedding", "positional_embedding"),
        ("final_ln.weight", "ln_final.weight"),
        ("final_ln.bias", "ln_final.bias"),
    ],
    layers: "transformer.resblocks.",
    layer: &[
        ("ln1.weight", "ln_1.weight", Part::Whole),
        ("ln1.bias", "ln_1.bias", Part::Whole),
        ("q.weight", "attn.in_proj_weight", Part::Third(0)),
        ("q.bias", "attn.in_proj_bias", Part::Third(0)),
        ("k.weight", "attn.in_proj_weight", Part::Third(1)),
        ("k.bias", "attn.in_proj_bias", Part::Third(1)),
        ("v.weight", "attn.in_proj_weight", Part::Third(2)),
        ("v.bias", "attn.in_proj_bias", Part::Third(2)),
        ("out.weight", "attn.out_proj.weight", Part::Whole),
        ("out.bias", "attn.out_proj.bias", Part::Whole),
        ("ln2.weight", "ln_2.weight", Part::Whole),
        ("ln2.bias", "ln_2.bias", Part::Whole),
        ("fc1.weight", "mlp.c_fc.weight", Part::Whole),
        ("fc1.bias", "mlp.c_fc.bias", Part::Whole),
        ("fc2.weight", "mlp.c_proj.weight", Part::Whole),
        ("fc2.bias", "mlp.c_proj.bias", Part::Whole),
    ],
    fused: &[],
    territory: &["token_embedding.", "transformer.", "ln_final."],
};

/// The key whose suffix marks a tower of this style (unless `embeddings.` stands before it).
pub(crate) const TOKEN_EMBEDDING: &str = "token_embedding.weight";
