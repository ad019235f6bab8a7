//! The names of transformers' `CLIPTextModel`, below the tower's root (which ends in `text_model.`
//! or, for files saved fresh by transformers 5.6 and later, is flat).

use super::names::{Naming, Part};

/// The table; the projection stands beside the root and is searched for separately.
pub(crate) const NAMING: Naming = Naming {
    outer: &[
        ("token_embedding", TOKEN_EMBEDDING),
        ("position_embedding", "embeddings.position_embedding.weight"),
        ("final_ln.weight", "final_layer_norm.weight"),
        ("final_ln.bias", "final_layer_norm.bias"),
    ],
    layers: "encoder.layers.",
    layer: &[
        ("ln1.weight", "layer_norm1.weight", Part::Whole),
        ("ln1.bias", "layer_norm1.bias", Part::Whole),
        ("q.weight", "self_attn.q_proj.weight", Part::Whole),
        ("q.bias", "self_attn.q_proj.bias", Part::Whole),
        ("k.weight", "self_attn.k_proj.weight", Part::Whole),
        ("k.bias", "self_attn.k_proj.bias", Part::Whole),
        ("v.weight", "self_attn.v_proj.weight", Part::Whole),
        ("v.bias", "self_attn.v_proj.bias", Part::Whole),
        ("out.weight", "self_attn.out_proj.weight", Part::Whole),
        ("out.bias", "self_attn.out_proj.bias", Part::Whole),
        ("ln2.weight", "layer_norm2.weight", Part::Whole),
        ("ln2.bias", "layer_norm2.bias", Part::Whole),
        ("fc1.weight", "mlp.fc1.weight", Part::Whole),
        ("fc1.bias", "mlp.fc1.bias", Part::Whole),
        ("fc2.weight", "mlp.fc2.weight", Part::Whole),
        ("fc2.bias", "mlp.fc2.bias", Part::Whole),
    ],
    // stable-diffusion.cpp's, where it renamed `open_clip`'s tensors.
    fused: &[
        ("q.weight", "self_attn.in_proj.weight", Part::Third(0)),
        ("q.bias", "self_attn.in_proj.bias", Part::Third(0)),
        ("k.weight", "self_attn.in_proj.weight", Part::Third(1)),
        ("k.bias", "self_attn.in_proj.bias", Part::Third(1)),
        ("v.weight", "self_attn.in_proj.weight", Part::Third(2)),
        ("v.bias", "self_attn.in_proj.bias", Part::Third(2)),
    ],
    territory: &["embeddings.", "encoder.", "final_layer_norm."],
};

/// The key whose suffix marks a tower of this style.
pub(crate) const TOKEN_EMBEDDING: &str = "embeddings.token_embedding.weight";

/// The root that transformers before 5.6 writes, and that ends most roots in the wild.
pub(crate) const ROOT: &str = "text_model.";
