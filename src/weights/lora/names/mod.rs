//! MODULE NAMES → TENSORS. Every full name that a family's encoders may have in a LoRA file, by
//! scheme; names are looked up whole, never guessed from a part.

mod comfyui;
mod diffusers;
mod kohya;
mod omi;
mod other;
mod peft;

use std::collections::BTreeMap;

use crate::weights::layout::huggingface;
use crate::weights::layout::names::{LAYERS, PROJECTION};
use crate::weights::{EncoderId, Family};

pub(super) use other::{Class, class_of};

/// One way to spell modules.
#[derive(Debug)]
pub(super) struct Scheme {
    /// Who writes it.
    pub(super) name: &'static str,
    /// Beginnings and whose modules follow; longer ones before their own beginnings.
    pub(super) prefixes: &'static [(&'static str, Slot)],
    /// What stands between the words of a path.
    pub(super) separator: char,
}

/// Which of a family's encoders a beginning means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The encoder of a family that has one.
    Only,
    /// The first or only one.
    First,
    /// bigG, as SDXL's second encoder or the refiner's.
    Second,
    /// This one.
    Named(EncoderId),
    /// The file does not say: the one whose matrices fit.
    Unsaid,
}

/// All of them, in the order in which they are tried.
const SCHEMES: [&Scheme; 5] = [
    &kohya::SCHEME,
    &diffusers::SCHEME,
    &comfyui::SCHEME,
    &omi::SCHEME,
    &peft::SCHEME,
];

/// A name with its scheme taken off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelt<'a> {
    pub(super) scheme: &'static Scheme,
    pub(super) prefix: &'static str,
    pub(super) slot: Slot,
    /// The path below the encoder.
    pub(super) path: &'a str,
}

/// The scheme of a text encoder's module; `None` for all other modules.
pub(super) fn spelt(module: &str) -> Option<Spelt<'_>> {
    SCHEMES.into_iter().find_map(|scheme| {
        scheme.prefixes.iter().find_map(|(prefix, slot)| {
            let path = module.strip_prefix(prefix)?;
            if *slot == Slot::Unsaid && !may_be_text(path, scheme.separator) {
                return None; // an adapter of something else
            }
            Some(Spelt {
                scheme,
                prefix,
                slot: *slot,
                path,
            })
        })
    })
}

/// What paths below a text encoder begin with, in flat words.
const FLAT: [&str; 5] = [
    "text_model_",
    "encoder_layers_",
    "embeddings_",
    "final_layer_norm",
    "text_projection",
];

/// True if a path that no encoder's name stands before may be one of a text encoder.
fn may_be_text(path: &str, separator: char) -> bool {
    match separator {
        '.' => class_of(path) == Class::Unknown,
        _ => FLAT.iter().any(|start| path.starts_with(start)),
    }
}

impl Slot {
    /// The encoders of `family` that it may mean.
    pub(super) fn encoders(self, family: Family) -> &'static [EncoderId] {
        let all = family.encoders();
        match self {
            Slot::Only if all.len() == 1 => all,
            Slot::First => &all[..1],
            Slot::Second if all.last() == Some(&EncoderId::OpenClipG) => &all[all.len() - 1..],
            Slot::Named(encoder) => {
                let place = all.iter().position(|one| *one == encoder);
                place.map_or(&[], |place| &all[place..=place])
            }
            Slot::Unsaid => all,
            Slot::Only | Slot::Second => &[],
        }
    }
}

/// The two tensors of a module, by canonical name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) weight: String,
    pub(super) bias: Option<String>,
}

/// Every path that an encoder's modules may have.
#[derive(Debug)]
pub(super) struct Paths {
    dotted: BTreeMap<String, Target>,
    /// The same with `_` for every `.`; no two of an encoder's paths become one by that.
    flat: BTreeMap<String, Target>,
    n_layers: usize,
}

impl Paths {
    /// The paths of an encoder with these canonical tensors, `text_model.` in front and without
    /// (transformers 5.6 and later name modules flat).
    pub(super) fn of<'a>(tensors: impl Iterator<Item = &'a str> + Clone) -> Paths {
        let mut dotted = BTreeMap::new();
        let has = |name: &str| tensors.clone().any(|other| other == name);
        for name in tensors.clone() {
            let Some(path) = path_of(name) else { continue };
            let bias = name
                .strip_suffix(".weight")
                .map(|stem| format!("{stem}.bias"));
            let target = Target {
                weight: name.to_owned(),
                bias: bias.filter(|bias| has(bias)),
            };
            dotted.insert(format!("{}{path}", huggingface::ROOT), target.clone());
            dotted.insert(path, target);
        }
        let flat = dotted.iter();
        let flat = flat.map(|(path, target)| (path.replace('.', "_"), target.clone()));
        Paths {
            flat: flat.collect(),
            n_layers: n_layers(tensors),
            dotted,
        }
    }

    /// What a path names.
    pub(super) fn find(&self, path: &str, separator: char) -> Option<&Target> {
        match separator {
            '.' => self.dotted.get(&diffusers::plain(path)),
            _ => self.flat.get(path),
        }
    }

    /// Why a path names nothing.
    pub(super) fn why_not(&self, path: &str, separator: char) -> String {
        if path == "text_projection" {
            return "this encoder was loaded without its projection".to_owned();
        }
        let layers = format!("layers{separator}");
        let number = path.split(&layers).nth(1).map(|rest| {
            let end = rest.find(|one: char| !one.is_ascii_digit());
            &rest[..end.unwrap_or(rest.len())]
        });
        match number.and_then(|digits| digits.parse::<usize>().ok()) {
            Some(layer) if layer >= self.n_layers => format!(
                "layer {layer} is not there: this encoder has layers 0 to {}",
                self.n_layers.saturating_sub(1)
            ),
            _ => "no module of this name".to_owned(),
        }
    }
}

/// One more than the last layer's number.
fn n_layers<'a>(tensors: impl Iterator<Item = &'a str>) -> usize {
    let layer = |name: &str| name.strip_prefix(LAYERS)?.split('.').next()?.parse().ok();
    let last: Option<usize> = tensors.filter_map(layer).max();
    last.map_or(0, |last| last + 1)
}

/// transformers' path of the module that a canonical weight belongs to.
fn path_of(canonical: &str) -> Option<String> {
    if canonical == PROJECTION {
        return Some("text_projection".to_owned());
    }
    let (file, _) = huggingface::NAMING.file_name(canonical)?;
    Some(file.strip_suffix(".weight")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSORS: [&str; 5] = [
        "token_embedding",
        "layers.0.q.weight",
        "layers.0.q.bias",
        "layers.1.fc1.weight",
        "projection",
    ];

    fn found(module: &str) -> Option<(Slot, String)> {
        let spelt = spelt(module)?;
        let paths = Paths::of(TENSORS.iter().copied());
        let target = paths.find(spelt.path, spelt.scheme.separator)?;
        Some((spelt.slot, target.weight.clone()))
    }

    #[test]
    fn all_schemes_reach_the_same_tensor() {
        let check = |slot: Slot, module: &str| {
            let want = Some((slot, "layers.0.q.weight".to_owned()));
            assert_eq!(found(module), want, "{module}");
        };
        for (start, slot) in KOHYA {
            check(slot, &format!("{start}encoder_layers_0_self_attn_q_proj"));
        }
        for (start, slot) in DOTTED {
            check(slot, &format!("{start}encoder.layers.0.self_attn.q_proj"));
        }
        let to_q = "text_encoder_2.text_model.encoder.layers.0.self_attn.to_q";
        check(Slot::Second, to_q);
    }

    const KOHYA: [(&str, Slot); 6] = [
        ("lycoris_text_model_", Slot::Unsaid),
        ("lycoris_", Slot::Unsaid),
        ("lora_te_text_model_", Slot::Only),
        ("lora_te1_text_model_", Slot::First),
        ("lora_te2_text_model_", Slot::Second),
        ("lora_te_", Slot::Only),
    ];

    const DOTTED: [(&str, Slot); 6] = [
        ("text_encoder.text_model.", Slot::First),
        ("text_encoder.", Slot::First),
        ("base_model.model.", Slot::Unsaid),
        ("base_model.model.text_model.", Slot::Unsaid),
        ("text_encoders.clip_g.transformer.text_model.", NAMED),
        ("clip_g.text_model.", NAMED),
    ];

    const NAMED: Slot = Slot::Named(EncoderId::OpenClipG);

    #[test]
    fn near_misses_name_nothing() {
        for module in [
            "lora_te_text_model_encoder_layers_00_self_attn_q_proj",
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj_",
            "lora_te_text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.2.self_attn.q_proj",
            "lora_te1_text_model_encoder_layers_1_self_attn_q_proj",
        ] {
            assert_eq!(found(module), None, "{module}");
        }
        assert!(spelt("base_model.model.down_blocks.0.to_q").is_none());
        assert!(spelt("lora_unet_mid_block").is_none());
        for (module, class) in [
            (
                "lycoris_mid_block_attentions_0_proj_in",
                Class::Skipped("unet"),
            ),
            ("lycoris_conv_in", Class::Skipped("unet")),
            ("lycoris_encoder_hid_proj", Class::Unknown),
        ] {
            assert!(spelt(module).is_none(), "{module}");
            assert_eq!(class_of(module), class, "{module}");
        }
        assert!(spelt("lora_te3_encoder_block_0").is_none());
    }

    #[test]
    fn reasons() {
        let paths = Paths::of(TENSORS.iter().copied());
        let why = paths.why_not("text_model_encoder_layers_7_mlp_fc1", '_');
        assert!(why.contains("layer 7") && why.contains("0 to 1"), "{why}");
        assert_eq!(paths.why_not("nonsense", '.'), "no module of this name");
    }

    #[test]
    fn slots() {
        let check = |slot: Slot, family: Family, want: &[EncoderId]| {
            assert_eq!(slot.encoders(family), want, "{slot:?} {family}");
        };
        let (l, g) = (EncoderId::ClipL, EncoderId::OpenClipG);
        check(Slot::Only, Family::Sd1, &[l]);
        check(Slot::Only, Family::Sdxl, &[]);
        check(Slot::Only, Family::Refiner, &[g]);
        check(Slot::First, Family::Sdxl, &[l]);
        check(Slot::Second, Family::Sdxl, &[g]);
        check(Slot::Second, Family::Refiner, &[g]);
        check(Slot::Second, Family::Sd2, &[]);
        check(Slot::Named(l), Family::Sd2, &[]);
        check(Slot::Unsaid, Family::Sdxl, &[l, g]);
    }
}
