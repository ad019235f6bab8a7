//! Modules that belong to no text encoder of Stable Diffusion.

/// What else a module of a LoRA file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights::lora) enum Class {
    /// A part of the picture side, or another model's encoder: passed over and counted.
    Skipped(&'static str),
    /// A textual inversion inside the LoRA.
    Embedding,
    /// Nothing known.
    Unknown,
}

/// Beginnings, and what follows them; the first that fits counts.
const BEGINNINGS: [(&str, Class); 21] = [
    ("lora_unet_", Class::Skipped("unet")),
    ("unet.", Class::Skipped("unet")),
    ("diffusion_model.", Class::Skipped("unet")),
    ("model.diffusion_model.", Class::Skipped("unet")),
    ("lycoris_", Class::Skipped("unet")),
    ("lora_transformer_", Class::Skipped("transformer")),
    ("transformer.", Class::Skipped("transformer")),
    ("lora_prior_unet_", Class::Skipped("prior")),
    ("lora_prior_te_", Class::Skipped("stable cascade text")),
    ("down_blocks", Class::Skipped("unet")),
    ("up_blocks", Class::Skipped("unet")),
    ("mid_block", Class::Skipped("unet")),
    ("base_model.model.down_blocks", Class::Skipped("unet")),
    ("base_model.model.up_blocks", Class::Skipped("unet")),
    ("base_model.model.mid_block", Class::Skipped("unet")),
    ("lora_te3_", Class::Skipped("t5")),
    ("text_encoder_3.", Class::Skipped("t5")),
    ("text_encoders.", Class::Skipped("other text encoder")),
    ("t5.", Class::Skipped("t5")),
    ("vae.", Class::Skipped("vae")),
    ("bundle_emb.", Class::Embedding),
];

/// What a module is that no text scheme claims.
pub(in crate::weights::lora) fn class_of(module: &str) -> Class {
    let found = BEGINNINGS
        .iter()
        .find(|(start, _)| module.starts_with(start));
    found.map_or(Class::Unknown, |(_, class)| *class)
}
