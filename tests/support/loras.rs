//! The LoRA files that the reference outputs were made with, and ones written by hand.

use std::path::Path;

use sd_conditioner::Family;
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize, TensorSource};

use super::entries::{Entry, Stored, save};

/// Rank and alpha of the reference files; only kohya's names have an alpha.
pub(crate) const RANK: usize = 4;
pub(crate) const ALPHA: f32 = 2.0;

/// The six modules of a layer: canonical, transformers.
pub(crate) const MODULES: [(&str, &str); 6] = [
    ("q", "self_attn.q_proj"),
    ("k", "self_attn.k_proj"),
    ("v", "self_attn.v_proj"),
    ("out", "self_attn.out_proj"),
    ("fc1", "mlp.fc1"),
    ("fc2", "mlp.fc2"),
];

/// Down and up of one module by the rule: space `lora`, name `<encoder>/<module>.down` with the
/// scale √(3/in), `.up` with ½·√(3/rank).
fn matrices(encoder: EncoderId, path: &str, shape: &[usize], seed: u64) -> [Factor; 2] {
    let (out, columns) = (shape[0], shape[1]);
    let make = |part: &str, shape: [usize; 2], scale: f64| {
        let name = format!("{encoder}/{path}.{part}");
        let make = move || Synthetic::plain(seed, "lora", &name, shape[0] * shape[1], scale);
        (shape, Box::new(make) as Box<dyn Fn() -> Vec<f32>>)
    };
    let scale = |side: usize| (3.0 / side as f64).sqrt();
    [
        make("down", [RANK, columns], scale(columns)),
        make("up", [out, RANK], 0.5 * scale(RANK)),
    ]
}

type Factor = ([usize; 2], Box<dyn Fn() -> Vec<f32>>);

/// Every module of an encoder: transformers' path and the shape of its weight.
pub(crate) fn modules(encoder: EncoderId, size: SyntheticSize) -> Vec<(String, Vec<usize>)> {
    let source = Synthetic::new(encoder, size, 0);
    let layers =
        (0..).take_while(|layer| source.info(&format!("layers.{layer}.q.weight")).is_some());
    let each = layers.flat_map(|layer| {
        MODULES.map(|(canonical, path)| {
            let info = source.info(&format!("layers.{layer}.{canonical}.weight"));
            let path = format!("text_model.encoder.layers.{layer}.{path}");
            (path, info.unwrap().shape)
        })
    });
    each.collect()
}

/// A LoRA for all modules of a family's encoders in one of the three namings.
pub(crate) fn entries(
    family: Family,
    size: SyntheticSize,
    naming: &str,
    (seed, stored): (u64, Stored),
) -> Vec<Entry> {
    let mut all = Vec::new();
    for (place, encoder) in family.encoders().iter().enumerate() {
        for (path, shape) in modules(*encoder, size) {
            let [down, up] = matrices(*encoder, &path, &shape, seed);
            let (flat, dotted) = names(family, *encoder, place, &path);
            let (name, ends) = match naming {
                "kohya" => (flat, ["lora_down.weight", "lora_up.weight"]),
                "peft" => (dotted, ["lora_A.weight", "lora_B.weight"]),
                "diffusers" => (
                    dotted,
                    [
                        "lora_linear_layer.down.weight",
                        "lora_linear_layer.up.weight",
                    ],
                ),
                other => panic!("no naming {other}"),
            };
            for ((shape, make), end) in [down, up].into_iter().zip(ends) {
                all.push(Entry::new(&format!("{name}.{end}"), stored, &shape, make));
            }
            if naming == "kohya" {
                all.push(Entry::filled(&format!("{name}.alpha"), stored, &[], ALPHA));
            }
        }
    }
    all.extend(of_unet(naming, stored));
    all
}

/// A module's name in kohya's way and in diffusers'.
fn names(family: Family, encoder: EncoderId, place: usize, path: &str) -> (String, String) {
    let short = match family {
        Family::Sdxl => format!("lora_te{}_", place + 1),
        _ => "lora_te_".to_owned(),
    };
    let long = match encoder {
        EncoderId::OpenClipG => "text_encoder_2.",
        _ => "text_encoder.",
    };
    (
        format!("{short}{}", path.replace('.', "_")),
        format!("{long}{path}"),
    )
}

/// One module of a U-Net, which must be passed over.
fn of_unet(naming: &str, stored: Stored) -> Vec<Entry> {
    let (name, ends) = match naming {
        "kohya" => (
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
            ["lora_down.weight", "lora_up.weight"],
        ),
        "peft" => (
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
            ["lora_A.weight", "lora_B.weight"],
        ),
        _ => return Vec::new(),
    };
    let down = Entry::filled(&format!("{name}.{}", ends[0]), stored, &[RANK, 768], 0.01);
    let up = Entry::filled(&format!("{name}.{}", ends[1]), stored, &[640, RANK], 0.01);
    vec![down, up]
}

/// Writes `<family>.<naming>.safetensors` for the tiny encoders of every family.
pub(crate) fn write(folder: &Path, seed: u64, stored: Stored) {
    for family in Family::ALL {
        for naming in ["kohya", "peft", "diffusers"] {
            let entries = entries(family, SyntheticSize::Tiny, naming, (seed, stored));
            save(
                &folder.join(format!("{family}.{naming}.safetensors")),
                &entries,
            );
        }
    }
}
