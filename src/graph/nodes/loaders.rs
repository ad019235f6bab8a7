//! Loaders, LoRAs and clip skip (`nodes.py`).

use super::Builtin;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::broken;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::needs::{Clip, ClipSource};
use crate::graph::value::{Kind, Value};

pub(super) const CLASSES: &[Builtin] = &[
    Builtin::new(
        "CheckpointLoaderSimple",
        &[Inlet::required("ckpt_name", Kind::Text)],
        &["ckpt_name"],
        checkpoint,
    ),
    Builtin::new(
        "unCLIPCheckpointLoader",
        &[Inlet::required("ckpt_name", Kind::Text)],
        &["ckpt_name"],
        checkpoint,
    ),
    Builtin::new(
        "CheckpointLoader",
        &[
            Inlet::required("config_name", Kind::Text),
            Inlet::required("ckpt_name", Kind::Text),
        ],
        &["config_name", "ckpt_name"],
        configured,
    ),
    Builtin::new(
        "DiffusersLoader",
        &[Inlet::required("model_path", Kind::Text)],
        &["model_path"],
        diffusers,
    ),
    Builtin::new(
        "CLIPLoader",
        &[
            Inlet::required("clip_name", Kind::Text),
            Inlet::optional("type", Kind::Text),
        ],
        &["clip_name", "type", "device"],
        encoder,
    ),
    Builtin::new(
        "DualCLIPLoader",
        &[
            Inlet::required("clip_name1", Kind::Text),
            Inlet::required("clip_name2", Kind::Text),
            Inlet::required("type", Kind::Text),
        ],
        &["clip_name1", "clip_name2", "type", "device"],
        two_encoders,
    ),
    Builtin::new(
        "LoraLoader",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("lora_name", Kind::Text),
            Inlet::required("strength_clip", Kind::Float),
        ],
        &["lora_name", "strength_model", "strength_clip"],
        lora,
    ),
    Builtin::new(
        "LoraLoaderModelOnly",
        &[],
        &["lora_name", "strength_model"],
        model_only,
    ),
    Builtin::new(
        "CLIPSetLastLayer",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("stop_at_clip_layer", Kind::Integer),
        ],
        &["stop_at_clip_layer"],
        last_layer,
    ),
];

/// Model, CLIP, VAE, and the vision encoder of unCLIP models.
fn checkpoint(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let name = call.text("ckpt_name")?;
    let clip = call.load(ClipSource::Checkpoint(name.to_string()));
    Ok(around(clip))
}

fn around(clip: Clip) -> Vec<Value> {
    vec![
        Value::Other("MODEL"),
        Value::Clip(clip),
        Value::Other("VAE"),
        Value::Other("CLIP_VISION"),
    ]
}

/// The layer that each of `ComfyUI`'s own configurations names (`layer_idx` in `models/configs`).
const CONFIGURATIONS: &[(&str, Option<i32>)] = &[
    ("anything_v3.yaml", Some(-2)),
    ("v1-inference.yaml", None),
    ("v1-inference_clip_skip_2.yaml", Some(-2)),
    ("v1-inference_clip_skip_2_fp16.yaml", Some(-2)),
    ("v1-inference_fp16.yaml", None),
    ("v1-inpainting-inference.yaml", None),
    ("v2-inference-v.yaml", None),
    ("v2-inference-v_fp32.yaml", None),
    ("v2-inference.yaml", None),
    ("v2-inference_fp32.yaml", None),
    ("v2-inpainting-inference.yaml", None),
];

/// A checkpoint with a configuration, of which only the clip skip concerns the text.
fn configured(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let config = call.text("config_name")?;
    let known = CONFIGURATIONS.iter().find(|(name, _)| **name == *config);
    let (_, layer) = known.ok_or_else(|| {
        let message = format!("the configuration {config:?} is none of ComfyUI's own");
        Error::new(ErrorKind::Unsupported, message)
            .hint("use CheckpointLoaderSimple, and CLIPSetLastLayer for its layer_idx")
    })?;
    let name = call.text("ckpt_name")?;
    let mut clip = call.load(ClipSource::Checkpoint(name.to_string()));
    clip.layer = *layer;
    Ok(around(clip))
}

fn diffusers(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let name = call.text("model_path")?;
    let clip = call.load(ClipSource::Diffusers(name.to_string()));
    Ok(around(clip))
}

/// One encoder's file. The type decides nothing for CLIP encoders, except where it makes them parts
/// of families that this crate does not know (`load_text_encoder_state_dicts`, `comfy/sd.py`).
fn encoder(call: &mut Call<'_>) -> Result<Vec<Value>> {
    if call.has("type") {
        let kind = call.text("type")?;
        if ["sd3", "stable_cascade", "hidream"].contains(&&*kind) {
            return Err(unsupported(&kind));
        }
    }
    let name = call.text("clip_name")?;
    let clip = call.load(ClipSource::Encoder(name.to_string()));
    Ok(vec![Value::Clip(clip)])
}

fn two_encoders(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let kind = call.text("type")?;
    if *kind != *"sdxl" {
        return Err(unsupported(&kind));
    }
    let names = ["clip_name1", "clip_name2"].map(|name| call.text(name));
    let [first, second] = names;
    let names = [first?.to_string(), second?.to_string()];
    let clip = call.load(ClipSource::SdxlEncoders(names));
    Ok(vec![Value::Clip(clip)])
}

fn unsupported(kind: &str) -> Error {
    let message = format!("text encoders of type {kind:?}");
    let error = Error::new(ErrorKind::Unsupported, message);
    error.hint("SD 1.x, SD 2.x, SDXL and its refiner are known")
}

fn lora(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (clip, name) = (call.clip("clip")?, call.text("lora_name")?);
    let strength = call.float("strength_clip")?;
    let clip = call.with_lora(clip, &name, strength)?;
    Ok(vec![Value::Other("MODEL"), Value::Clip(clip)])
}

/// Has no part in the text.
#[expect(clippy::unnecessary_wraps, reason = "as all classes")]
fn model_only(_: &mut Call<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Other("MODEL")])
}

fn last_layer(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let mut clip = call.clip("clip")?;
    let layer = call.integer("stop_at_clip_layer")?;
    let fits = i32::try_from(layer).ok().filter(|layer| *layer < 0);
    let fits = fits.ok_or_else(|| {
        broken(format!(
            "`stop_at_clip_layer` is {layer}; -1, -2… are possible"
        ))
    })?;
    clip.layer = Some(fits);
    Ok(vec![Value::Clip(clip)])
}
