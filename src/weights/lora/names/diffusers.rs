//! diffusers (`StableDiffusionLoraLoaderMixin`): the pipeline's component, then the module's path.

use super::{Scheme, Slot};

/// Both of the styles that diffusers has written, `lora_linear_layer` and PEFT's `lora_A`, have the
/// same module names.
pub(super) const SCHEME: Scheme = Scheme {
    name: "diffusers",
    prefixes: &[
        ("text_encoder_2.", Slot::Second),
        ("text_encoder.", Slot::First),
    ],
    separator: '.',
};

/// What attention processors of 2023 called the four projections.
const PROCESSORS: [(&str, &str); 4] = [
    (".to_q", ".q_proj"),
    (".to_k", ".k_proj"),
    (".to_v", ".v_proj"),
    (".to_out", ".out_proj"),
];

/// The path as transformers has it.
pub(super) fn plain(path: &str) -> String {
    let renamed = PROCESSORS.iter().find_map(|(old, new)| {
        let stem = path.strip_suffix(old)?;
        stem.ends_with(".self_attn").then(|| format!("{stem}{new}"))
    });
    renamed.unwrap_or_else(|| path.to_owned())
}
