//! Where conditionings go: samplers and guiders (`nodes.py`, `comfy_extras/nodes_custom_sampler.py`,
//! `comfy_extras/nodes_perpneg.py`).

use super::Builtin;
use crate::error::Result;
use crate::graph::call::Call;
use crate::graph::value::Value;

pub(super) const CLASSES: &[Builtin] = &[
    sampler("KSampler", "LATENT", &["positive", "negative"]),
    sampler("KSamplerAdvanced", "LATENT", &["positive", "negative"]),
    sampler("SamplerCustom", "LATENT", &["positive", "negative"]),
    sampler("CFGGuider", "GUIDER", &["positive", "negative"]),
    sampler("BasicGuider", "GUIDER", &["conditioning"]),
    sampler("DualCFGGuider", "GUIDER", &["cond1", "cond2", "negative"]),
    sampler(
        "PerpNegGuider",
        "GUIDER",
        &["positive", "negative", "empty_conditioning"],
    ),
];

const fn sampler(
    name: &'static str,
    output: &'static str,
    sinks: &'static [&'static str],
) -> Builtin {
    let evaluate = match output.as_bytes() {
        b"GUIDER" => guider,
        _ => latents,
    };
    Builtin {
        sinks,
        ..Builtin::new(name, &[], &[], evaluate)
    }
}

/// Nothing that has to do with text comes out.
#[expect(clippy::unnecessary_wraps, reason = "as all classes")]
fn latents(_: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Other("LATENT"), Value::Other("LATENT")])
}

#[expect(clippy::unnecessary_wraps, reason = "as all classes")]
fn guider(_: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Other("GUIDER")])
}
