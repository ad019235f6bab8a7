//! kohya's sd-scripts (`networks/lora.py`) and everything that follows it: one flat word.

use super::{Scheme, Slot};

/// `lora_te_` for a family with one encoder, `lora_te1_` and `lora_te2_` for SDXL. `ComfyUI`
/// (`model_lora_keys_clip` in `comfy/lora.py`) reads `lora_te1_` for SD 1.x and 2.x, too, and
/// `lora_te_` for the refiner. `LyCORIS` writes the path of
/// whatever it was wrapped around; where that was an encoder itself, no encoder is named.
pub(super) const SCHEME: Scheme = Scheme {
    name: "kohya",
    prefixes: &[
        ("lora_te1_", Slot::First),
        ("lora_te2_", Slot::Second),
        ("lora_te_", Slot::Only),
        ("lycoris_text_encoder_2_", Slot::Second),
        ("lycoris_text_encoder_", Slot::First),
        ("lycoris_", Slot::Unsaid),
    ],
    separator: '_',
};
