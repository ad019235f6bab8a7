//! The `config.json` beside an encoder in a diffusers folder.

use serde_json::json;

use super::plan::Kept;

/// Attention heads have 64 channels in L, H and G (`open_clip`'s `model_configs`).
const HEAD_WIDTH: usize = 64;

/// What transformers' `CLIPTextConfig` reads. The end-of-text id is the true one, 49407: published
/// configurations have 2, which transformers takes as a sign to look for the largest id instead.
pub(super) fn text(kept: &Kept, hidden_act: &str, dtype: &str) -> String {
    let dimensions = kept.dimensions;
    let width = dimensions.width;
    let config = json!({
        "architectures": [class(kept.projected)],
        "attention_dropout": 0.0,
        "bos_token_id": 49406,
        "dropout": 0.0,
        "eos_token_id": 49407,
        "hidden_act": hidden_act,
        "hidden_size": width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": dimensions.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": width / HEAD_WIDTH,
        "num_hidden_layers": dimensions.n_layers,
        "projection_dim": width,
        "torch_dtype": dtype,
        "vocab_size": dimensions.vocabulary,
    });
    format!("{config:#}\n")
}

const fn class(projected: bool) -> &'static str {
    if projected {
        "CLIPTextModelWithProjection"
    } else {
        "CLIPTextModel"
    }
}
