//! What a file without a usable text encoder is, so that the error can say so.

use crate::error::{Error, ErrorKind, Result, named};
use crate::weights::format::archive::Archive;

/// Parts of names that only adapters have.
const ADAPTER_PARTS: [&str; 9] = [
    ".lora_down.",
    ".lora_up.",
    ".lora_A",
    ".lora_B",
    "lora_linear_layer",
    ".hada_w1",
    ".lokr_w",
    ".oft_blocks",
    ".dora_scale",
];

/// First words of names that only adapters have.
const ADAPTER_STARTS: [&str; 3] = ["lora_te", "lora_unet_", "lora_transformer_"];

/// A file with this many tensors or more is no textual inversion.
const EMBEDDING_BELOW: usize = 10;

/// A name that only an adapter has, as the file spells it.
pub(crate) fn adapter(archive: &Archive) -> Option<&str> {
    let marked = archive.entries.iter().find(|(name, _)| {
        ADAPTER_PARTS.iter().any(|part| name.contains(part))
            || ADAPTER_STARTS.iter().any(|start| name.starts_with(start))
    });
    marked.map(|(_, entry)| entry.file_name.as_str())
}

/// An error if the file is an adapter or an embedding; looked at before towers are.
pub(crate) fn refuse_adapters(archive: &Archive) -> Result<()> {
    if let Some(name) = adapter(archive) {
        let error = refusal("this is a LoRA or a file with LoRA weights in it, not a text encoder");
        return Err(error
            .at_tensor(name)
            .hint("load it as a LoRA on top of a checkpoint"));
    }
    if is_embedding(archive) {
        let error = refusal("this is a textual inversion embedding, not a text encoder");
        return Err(error.hint("put it into the folder of embeddings and name it in the prompt"));
    }
    Ok(())
}

/// `emb_params`, `string_to_param`, `clip_l` with `clip_g`, or a few vectors named by a token.
fn is_embedding(archive: &Archive) -> bool {
    const WIDTHS: [usize; 3] = [768, 1024, 1280];
    let has = |name| archive.entries.contains_key(name);
    let few = archive.entries.len() < EMBEDDING_BELOW;
    let vectors = archive.entries.iter().all(|(name, entry)| {
        let width = entry
            .shape
            .last()
            .is_some_and(|width| WIDTHS.contains(width));
        !name.contains('.') && entry.shape.len() <= 2 && width
    });
    let named = has("emb_params")
        || has("string_to_param")
        || archive.has_below("string_to_param.")
        || (has("clip_l") && has("clip_g"));
    few && (named || vectors)
}

/// Beginnings of names, and what a file with such a name is; the first hit counts.
const PREFIXES: [(&str, &str); 33] = [
    (
        "model.diffusion_model.joint_blocks.",
        "a Stable Diffusion 3 checkpoint",
    ),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    (
        "model.diffusion_model.double_blocks.",
        "a Flux (or Chroma, or HunyuanVideo) checkpoint",
    ),
    (
        "double_blocks.",
        "a Flux (or Chroma, or HunyuanVideo) model",
    ),
    ("double_stream_modulation", "a Flux.2 model"),
    (
        "text_encoders.t5xxl.",
        "a checkpoint with a T5 encoder only",
    ),
    ("encoder.block.0.layer.0.SelfAttention.", "a T5 encoder"),
    ("shared.weight", "a T5 encoder"),
    ("enc.blk.0.", "a T5 encoder in llama.cpp's names"),
    ("blk.0.", "a language model in llama.cpp's names"),
    (
        "model.layers.0.",
        "a language model used as an encoder (Qwen, Llama, Gemma, Mistral)",
    ),
    (
        "cond_stage_model.roberta.",
        "AltDiffusion, whose encoder is XLM-R",
    ),
    (
        "cond_stage_model.transformer.token_emb.",
        "a latent diffusion model from before SD (BERT)",
    ),
    ("cc_projection.", "an image-conditioned model (Zero123)"),
    (
        "cond_stage_model.model.visual.",
        "an image-conditioned model (image variations)",
    ),
    (
        "conditioner.embedders.0.open_clip.",
        "Stable Video Diffusion",
    ),
    ("clip_txt_mapper.", "Stable Cascade"),
    ("clip_mapper.", "Stable Cascade"),
    ("effnet_mapper.", "Stable Cascade"),
    ("cap_embedder.", "a Lumina model"),
    ("t_block.", "a PixArt model"),
    ("mlp_t5.", "a HunyuanDiT model"),
    ("text_embedding_padding", "a HunyuanDiT model"),
    (
        "transformer.encoder.layers.0.self_attention.",
        "ChatGLM, the encoder of Kolors",
    ),
    (
        "encoder.layers.0.self_attention.",
        "ChatGLM, the encoder of Kolors",
    ),
    ("text.cls_emb", "a CoCa model"),
    ("text.logit_bias", "a SigLIP model"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("image_proj.", "an IP-Adapter"),
    ("ip_adapter.", "an IP-Adapter"),
    (
        "vision_model.",
        "a CLIP image encoder without its text side",
    ),
];

/// Weaker signs, which whole checkpoints have too.
const PARTS: [(&str, &str); 8] = [
    ("first_stage_model.", "a VAE"),
    ("encoder.down.", "a VAE"),
    ("encoder.down_blocks.", "a VAE"),
    ("decoder.up", "a VAE"),
    ("down_blocks.", "a diffusers U-Net"),
    ("up_blocks.", "a diffusers U-Net"),
    ("input_blocks.", "a U-Net without prefix"),
    ("visual.", "a CLIP image encoder without its text side"),
];

/// The error for a file in which no tower was found.
pub(crate) fn no_tower(archive: &Archive) -> Error {
    if let Some(name) = super::detect::headless(archive) {
        let message = "there are layers of a text encoder, but no token embedding beside them";
        return Error::new(ErrorKind::MissingTensor, message).at_tensor(name);
    }
    if is_video(archive) {
        return refusal("no text encoder in it: this is Stable Video Diffusion");
    }
    if archive.has_below("prompt_embeds") || archive.has_below("negative_prompt_embeds") {
        let error = refusal("no text encoder in it: this is a conditioning, encoded prompts");
        return error.hint("it was written by `encode`, or by a pipeline of diffusers");
    }
    if let Some(what) = sign(archive, &PREFIXES) {
        let message = format!("no text encoder of Stable Diffusion in it: this is {what}");
        return refusal(&message);
    }
    if archive.has_below("model.diffusion_model.") {
        let message = "no text encoder in it: this is a U-Net-only checkpoint";
        return refusal(message).hint("give the text encoder as a file of its own");
    }
    if let Some(what) = sign(archive, &PARTS) {
        return refusal(&format!("no text encoder in it: this is {what}"));
    }
    unknown(archive)
}

fn is_video(archive: &Archive) -> bool {
    let mut names = archive.entries.keys();
    names.any(|name| name.ends_with(".time_mixer.mix_factor"))
}

/// What the first of the signs that the file has says.
fn sign(archive: &Archive, signs: &[(&str, &'static str)]) -> Option<&'static str> {
    let found = signs.iter().find(|(prefix, _)| archive.has_below(prefix));
    found.map(|(_, what)| *what)
}

fn unknown(archive: &Archive) -> Error {
    let n_tensors = archive.entries.len();
    let some: Vec<_> = archive
        .entries
        .keys()
        .take(3)
        .map(|name| format!("`{}`", named(name)))
        .collect();
    refusal(&format!(
        "no text encoder among {n_tensors} tensors such as {}",
        some.join(", ")
    ))
}

fn refusal(message: &str) -> Error {
    Error::new(ErrorKind::UnknownLayout, message)
}
