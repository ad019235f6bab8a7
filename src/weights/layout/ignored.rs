//! Names that are passed over on purpose, by class.

/// Leaves that belong to a tower's file but hold nothing that is used.
const LEAVES: [(&str, &str); 10] = [
    ("position_ids", "position_ids"),
    ("logit_scale", "logit_scale"),
    ("logit_bias", "logit_scale"),
    ("attn_mask", "attn_mask"),
    ("scaled_fp8", "quantization"),
    ("scale_input", "quantization"),
    ("input_scale", "quantization"),
    ("comfy_quant", "quantization"),
    ("spiece_model", "tokenizer"),
    ("tekken_model", "tokenizer"),
];

/// Words of a path that mark an image encoder.
const VISION: [&str; 4] = ["visual", "vision_model", "visual_projection", "open_clip"];

/// First words of everything else in a checkpoint.
const PREFIXES: [(&str, &str); 15] = [
    ("model.diffusion_model.", "unet"),
    ("unet.", "unet"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
    ("model_ema.", "ema"),
    ("control_model.", "controlnet"),
    ("embedder.model.", "vision"),
    ("noise_augmentor.", "vision"),
    ("embedding_manager.", "embeddings"),
    ("bundle_emb.", "embeddings"),
    ("text_encoders.", "other encoders"),
    ("sqrt_", "schedule"),
    ("posterior_", "schedule"),
    ("log_one_minus", "schedule"),
    ("denoiser.", "schedule"),
];

/// Whole names: schedules, markers of the prediction type, and what OpenAI's archives carry.
const WHOLE: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "lvlb_weights",
    "v_pred",
    "ztsnr",
    "edm_mean",
    "edm_std",
    "edm_vpred.sigma_max",
    "edm_vpred.sigma_min",
    "model_ema.decay",
    "scale_factor",
];

/// The class of a name that no tower uses, or `None` if no rule knows it.
pub(crate) fn class_of(name: &str) -> Option<&'static str> {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    if let Some((_, class)) = LEAVES.iter().find(|(known, _)| *known == leaf) {
        return Some(class);
    }
    if name.split('.').any(|word| VISION.contains(&word)) {
        return Some("vision");
    }
    if let Some((_, class)) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some(class);
    }
    match name {
        "input_resolution" | "context_length" | "vocab_size" => Some("metadata"),
        _ if WHOLE.contains(&name) => Some("schedule"),
        _ => None,
    }
}
