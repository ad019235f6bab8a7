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
const BEGINNINGS: [(&str, Class); 20] = [
    ("lora_unet_", Class::Skipped("unet")),
    ("unet.", Class::Skipped("unet")),
    ("diffusion_model.", Class::Skipped("unet")),
    ("model.diffusion_model.", Class::Skipped("unet")),
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

/// The same behind `lycoris_`: diffusers' names and the original ones.
const LYCORIS: [(&str, &str); 14] = [
    ("down_blocks_", "unet"),
    ("up_blocks_", "unet"),
    ("mid_block_", "unet"),
    ("conv_in", "unet"),
    ("conv_out", "unet"),
    ("time_embed", "unet"),
    ("add_embedding_", "unet"),
    ("input_blocks_", "unet"),
    ("middle_block_", "unet"),
    ("output_blocks_", "unet"),
    ("label_emb_", "unet"),
    ("unet_", "unet"),
    ("transformer_", "transformer"),
    ("single_transformer_", "transformer"),
];

/// What a module is that no text scheme claims.
pub(in crate::weights::lora) fn class_of(module: &str) -> Class {
    if let Some(path) = module.strip_prefix("lycoris_") {
        let mut found = LYCORIS.iter().filter(|(start, _)| path.starts_with(start));
        let found = found.next();
        return found.map_or(Class::Unknown, |(_, class)| Class::Skipped(class));
    }
    let found = BEGINNINGS
        .iter()
        .find(|(start, _)| module.starts_with(start));
    found.map_or(Class::Unknown, |(_, class)| *class)
}
