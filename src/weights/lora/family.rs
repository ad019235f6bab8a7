//! NAMES, SIZES, METADATA → FAMILIES. Which family a LoRA was trained for: the encoder of SD 1.x is
//! the first of SDXL, too, so that shapes alone cannot tell.

use super::Opened;
use super::names::{Slot, spelt};
use super::roles::Role;
use crate::error::named;
use crate::weights::Family::{self, Refiner, Sd1, Sd2, Sdxl};

/// The families that a LoRA may be for, and what tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Empty if it is for none that this crate knows.
    pub(super) families: Vec<Family>,
    /// Its name where it is for none.
    pub(super) foreign: Option<&'static str>,
    pub(super) because: String,
}

/// Parts of names that only other models' `LoRA`s have.
const FOREIGN: [(&str, &str); 10] = [
    ("lora_unet_double_blocks_", "Flux"),
    ("diffusion_model.double_blocks.", "Flux"),
    ("transformer.single_transformer_blocks.", "Flux"),
    ("lora_transformer_single_transformer_blocks_", "Flux"),
    ("lora_unet_joint_blocks_", "Stable Diffusion 3"),
    ("diffusion_model.joint_blocks.", "Stable Diffusion 3"),
    ("text_encoder_3.", "Stable Diffusion 3"),
    // Flux's own names stand above.
    ("transformer.transformer_blocks.", "Stable Diffusion 3"),
    ("lora_transformer_", "Stable Diffusion 3"),
    ("lora_prior_", "Stable Cascade"),
];

/// Values of metadata and what they mean; the first that a value begins with counts.
const NAMED: [(&str, Option<Family>); 12] = [
    ("stable-diffusion-v1", Some(Sd1)),
    ("stable-diffusion-v2", Some(Sd2)),
    ("stable-diffusion-xl-v1-refiner", Some(Refiner)),
    ("stable-diffusion-xl", Some(Sdxl)),
    ("sd_v1", Some(Sd1)),
    ("sd_1.5", Some(Sd1)),
    ("sd_v2", Some(Sd2)),
    ("sd_2", Some(Sd2)),
    ("sdxl_refiner", Some(Refiner)),
    ("sdxl", Some(Sdxl)),
    ("sd3", None),
    ("flux", None),
];

/// Where metadata say what a LoRA was trained on.
const METADATA: [&str; 2] = ["modelspec.architecture", "ss_base_model_version"];

/// Weighs all signs; the surest come first.
pub(super) fn origin(lora: &Opened) -> Origin {
    if let Some((name, what)) = foreign(lora) {
        return Origin {
            families: Vec::new(),
            foreign: Some(what),
            because: format!("`{}`", named(&name)),
        };
    }
    let (families, because) = by_names(lora);
    let mut origin = Origin {
        families,
        foreign: None,
        because,
    };
    let signs = [by_width(lora), by_unet(lora), by_metadata(lora)];
    for (sign, because) in signs.into_iter().flatten() {
        origin.narrow(&sign, because);
    }
    origin
}

fn foreign(lora: &Opened) -> Option<(String, &'static str)> {
    FOREIGN.iter().find_map(|(start, what)| {
        let mut names = lora.archive.below(start);
        Some((names.next()?.1.file_name.clone(), *what))
    })
}

/// `lora_te1_` with `lora_te2_` is SDXL; `lora_te_` alone is any but SDXL.
fn by_names(lora: &Opened) -> (Vec<Family>, String) {
    let mut slots: Vec<Slot> = Vec::new();
    for spelt in lora.modules.keys().filter_map(|module| spelt(module)) {
        if !slots.contains(&spelt.slot) {
            slots.push(spelt.slot);
        }
    }
    let fits = |family: &Family| slots.iter().all(|slot| !slot.encoders(*family).is_empty());
    let mut families: Vec<Family> = Family::ALL.into_iter().filter(fits).collect();
    if slots.contains(&Slot::First) && slots.contains(&Slot::Second) {
        families = vec![Sdxl];
    }
    if families.is_empty() {
        families = Family::ALL.to_vec(); // no family has all; each module is looked at by itself
    }
    (families, "the names of its modules".to_owned())
}

/// The widths of published encoders are families' own, but for ViT-L's.
fn by_width(lora: &Opened) -> Option<(Vec<Family>, String)> {
    let width = text_width(lora)?;
    let families = match width {
        768 => vec![Sd1, Sdxl],
        1024 => vec![Sd2],
        1280 => vec![Sdxl, Refiner],
        _ => return None,
    };
    Some((families, format!("the width {width} of its text modules")))
}

/// Input channels of a text module that reads hidden states.
fn text_width(lora: &Opened) -> Option<usize> {
    const READERS: [&str; 6] = ["q_proj", "k_proj", "v_proj", "to_q", "to_k", "to_v"];
    let mut widths = lora.modules.iter().filter_map(|(module, roles)| {
        let reads = READERS.iter().any(|end| module.ends_with(end));
        roles
            .get(&Role::Down)
            .filter(|_| reads)?
            .shape
            .get(1)
            .copied()
    });
    widths.next()
}

/// The width of the context that the U-Net's modules read. Looked at beside text modules of a
/// published width only.
fn by_unet(lora: &Opened) -> Option<(Vec<Family>, String)> {
    if text_width(lora).is_some_and(|width| ![768, 1024, 1280].contains(&width)) {
        return None;
    }
    let width = context_width(lora)?;
    let family = match width {
        768 => Sd1,
        1024 => Sd2,
        2048 => Sdxl,
        1280 => Refiner,
        _ => return None,
    };
    Some((
        vec![family],
        format!("the context of {width} channels that its U-Net modules read"),
    ))
}

/// Input channels of a U-Net module that reads the context.
fn context_width(lora: &Opened) -> Option<usize> {
    let mut widths = lora.archive.entries.iter().filter_map(|(name, entry)| {
        let (module, role) = super::roles::split(name)?;
        let reads = module.ends_with("attn2_to_k") || module.ends_with("attn2.to_k");
        entry
            .shape
            .get(1)
            .filter(|_| reads && role == Role::Down)
            .copied()
    });
    widths.next()
}

fn by_metadata(lora: &Opened) -> Option<(Vec<Family>, String)> {
    METADATA.iter().find_map(|key| {
        let value = lora.archive.metadata.get(*key)?;
        let lower = value.to_lowercase();
        let (_, family) = NAMED.iter().find(|(start, _)| lower.starts_with(start))?;
        Some((
            vec![(*family)?],
            format!("its metadata (`{key}` is {value:?})"),
        ))
    })
}

impl Origin {
    /// Keeps the families that a sign is for, too. A sign against surer ones, and one that says
    /// nothing new, changes nothing.
    fn narrow(&mut self, sign: &[Family], because: String) {
        let known = self.families.iter().copied();
        let narrowed: Vec<Family> = known.filter(|family| sign.contains(family)).collect();
        if !narrowed.is_empty() && narrowed.len() < self.families.len() {
            self.families = narrowed;
            self.because = because;
        }
    }

    /// What it is for, in words.
    pub(super) fn describe(&self) -> String {
        if let Some(foreign) = self.foreign {
            return foreign.to_owned();
        }
        let names: Vec<&str> = self.families.iter().map(|family| family.name()).collect();
        names.join(" or ")
    }
}
