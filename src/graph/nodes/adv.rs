//! `ComfyUI_ADV_CLIP_emb` (`nodes.py` there).

use super::Builtin;
use super::encode::{SIZES, refiner_sizes, sizes};
use crate::conditioning::Emphasis;
use crate::error::Result;
use crate::graph::broken;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::recipe::{Change, Encode, Texts};
use crate::graph::value::{Kind, Value};

const NORMALIZATION: Inlet = Inlet::required("token_normalization", Kind::Text);
const INTERPRETATION: Inlet = Inlet::required("weight_interpretation", Kind::Text);
/// Commented out in the last version; earlier ones have it.
const AFFECT_POOLED: Inlet = Inlet::optional("affect_pooled", Kind::Text);

pub(super) const CLASSES: &[Builtin] = &[
    Builtin::new(
        "BNK_CLIPTextEncodeAdvanced",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("text", Kind::Text),
            NORMALIZATION,
            INTERPRETATION,
            AFFECT_POOLED,
        ],
        &[
            "text",
            "token_normalization",
            "weight_interpretation",
            "affect_pooled",
        ],
        plain,
    ),
    Builtin::new(
        "BNK_CLIPTextEncodeSDXLAdvanced",
        &[
            Inlet::required("clip", Kind::Clip),
            Inlet::required("text_l", Kind::Text),
            Inlet::required("text_g", Kind::Text),
            NORMALIZATION,
            INTERPRETATION,
            Inlet::required("balance", Kind::Float),
            AFFECT_POOLED,
        ],
        &[
            "text_l",
            "text_g",
            "token_normalization",
            "weight_interpretation",
            "balance",
            "affect_pooled",
        ],
        sdxl,
    ),
    Builtin::new(
        "BNK_AddCLIPSDXLParams",
        &[
            Inlet::required("conditioning", Kind::Conditioning),
            SIZES[0],
            SIZES[1],
            SIZES[2],
            SIZES[3],
            SIZES[4],
            SIZES[5],
        ],
        &[
            "width",
            "height",
            "crop_w",
            "crop_h",
            "target_width",
            "target_height",
        ],
        add_sizes,
    ),
    Builtin::new(
        "BNK_AddCLIPSDXLRParams",
        &[
            Inlet::required("conditioning", Kind::Conditioning),
            SIZES[0],
            SIZES[1],
            Inlet::required("ascore", Kind::Float),
        ],
        &["width", "height", "ascore"],
        add_refiner_sizes,
    ),
];

fn plain(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let encode = Encode {
        clip: call.clip("clip")?,
        texts: Texts::One(call.text("text")?),
        emphasis: emphasis(call)?,
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
        emphasis: emphasis(call)?,
    };
    Ok(vec![Value::Conditioning(call.encode(encode)?)])
}

fn emphasis(call: &Call<'_>) -> Result<Emphasis> {
    let normalization = call.text("token_normalization")?;
    let interpretation = call.text("weight_interpretation")?;
    let name = format!("adv:{normalization}:{interpretation}");
    match Emphasis::named(&name) {
        Some(Emphasis::Adv(mut adv)) => {
            if call.has("balance") {
                adv.balance = call.float("balance")?;
            }
            if call.has("affect_pooled") {
                adv.affect_pooled = *call.text("affect_pooled")? == *"enable";
            }
            Ok(Emphasis::Adv(adv))
        }
        _ => Err(broken(format!(
            "no method with normalization {normalization:?} and interpretation {interpretation:?}"
        ))),
    }
}

fn add_sizes(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (of, sizes) = (call.conditioning("conditioning")?, sizes(call)?);
    Ok(vec![Value::Conditioning(
        call.change(of, Change::Sizes(sizes))?,
    )])
}

fn add_refiner_sizes(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (of, sizes) = (call.conditioning("conditioning")?, refiner_sizes(call)?);
    Ok(vec![Value::Conditioning(
        call.change(of, Change::Sizes(sizes))?,
    )])
}
