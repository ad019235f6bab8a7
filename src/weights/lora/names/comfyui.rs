//! `ComfyUI`'s generic names (`model_lora_keys_clip` in `comfy/lora.py`): the path inside its own
//! model, which every weight has.

use super::{Scheme, Slot};
use crate::weights::EncoderId::{ClipL, OpenClipG, OpenClipH};

/// The encoder is named.
pub(super) const SCHEME: Scheme = Scheme {
    name: "ComfyUI",
    prefixes: &[
        ("text_encoders.clip_l.transformer.", Slot::Named(ClipL)),
        ("text_encoders.clip_h.transformer.", Slot::Named(OpenClipH)),
        ("text_encoders.clip_g.transformer.", Slot::Named(OpenClipG)),
    ],
    separator: '.',
};
