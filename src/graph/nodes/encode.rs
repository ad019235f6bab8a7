//! Prompts (`nodes.py`, `comfy_extras/nodes_clip_sdxl.py`).

use super::Builtin;
use crate::conditioning::{Emphasis, Sizes};
use crate::error::Result;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::recipe::{Change, Encode, Texts};
use crate::graph::value::{Kind, Value};

/// The sizes of SDXL's nodes.
pub(super) const SIZES: [Inlet; 6] = [
    Inlet::required("width", Kind::Integer),
    Inlet::required("height", Kind::Integer),
    Inlet::required("crop_w", Kind::Integer),
    Inlet::required("crop_h", Kind::Integer),
    Inlet::required("target_width", Kind::Integer),
    Inlet::required("target_height", Kind::Integer),
];

pub(super) const CLASSES: &[Builtin] = &[
    Builtin::new(
        "CLIPTextEncode",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("text", Kind::Text),
        ],
        &["text"],
        plain,
    )
    .with_prompts(&["text"]),
    Builtin::new(
        "CLIPTextEncodeSDXL",
        &[
            Inlet::required("clip", Kind::Clip),
            SIZES[0],
            SIZES[1],
            SIZES[2],
            SIZES[3],
            SIZES[4],
            SIZES[5],
            Inlet::required("text_g", Kind::Text),
            Inlet::required("text_l", Kind::Text),
        ],
        &[
            "width",
            "height",
            "crop_w",
            "crop_h",
            "target_width",
            "target_height",
            "text_g",
            "text_l",
        ],
        sdxl,
    )
    .with_prompts(&["text_g", "text_l"]),
    Builtin::new(
        "CLIPTextEncodeSDXLRefiner",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("ascore", Kind::Float),
            SIZES[0],
            SIZES[1],
            Inlet::required("text", Kind::Text),
        ],
        &["ascore", "width", "height", "text"],
        refiner,
    )
    .with_prompts(&["text"]),
];

fn plain(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let encode = Encode {
        clip: call.clip("clip")?,
        texts: Texts::One(call.text("text")?),
        emphasis: Emphasis::ComfyUi,
    };
    Ok(vec![Value::Conditioning(call.encode(encode)?)])
}

fn sdxl(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let encode = Encode {
        clip: call.clip("clip")?,
        texts: Texts::PerEncoder {
            l: call.text("text_l")?,
            g: call.text("text_g")?,
        },
        emphasis: Emphasis::ComfyUi,
    };
    let sizes = sizes(call)?;
    let encoded = call.encode(encode)?;
    let sized = call.change(encoded, Change::Sizes(sizes))?;
    Ok(vec![Value::Conditioning(sized)])
}

fn refiner(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let encode = Encode {
        clip: call.clip("clip")?,
        texts: Texts::One(call.text("text")?),
        emphasis: Emphasis::ComfyUi,
    };
    let sizes = refiner_sizes(call)?;
    let encoded = call.encode(encode)?;
    let sized = call.change(encoded, Change::Sizes(sizes))?;
    Ok(vec![Value::Conditioning(sized)])
}

/// The six sizes.
pub(super) fn sizes(call: &Call<'_>) -> Result<Sizes> {
    Ok(Sizes {
        width: Some(call.pixels("width")?),
        height: Some(call.pixels("height")?),
        crop_w: Some(call.pixels("crop_w")?),
        crop_h: Some(call.pixels("crop_h")?),
        target_width: Some(call.pixels("target_width")?),
        target_height: Some(call.pixels("target_height")?),
        aesthetic_score: None,
    })
}

/// Score and size.
pub(super) fn refiner_sizes(call: &Call<'_>) -> Result<Sizes> {
    Ok(Sizes {
        width: Some(call.pixels("width")?),
        height: Some(call.pixels("height")?),
        aesthetic_score: Some(call.float("ascore")?),
        ..Sizes::default()
    })
}
