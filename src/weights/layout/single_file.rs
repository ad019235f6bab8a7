//! Roots and what they mean: which program wrote a tower, and for which slot.

use super::detect::Found;
use super::{Style, huggingface, projection};
use crate::weights::EncoderId;
use crate::weights::format::archive::Archive;

/// Where in which kind of file an encoder was found.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// SD 1.x single file: `cond_stage_model.transformer.text_model.`
    Sd1,
    /// The same without `text_model.`, as the oldest merges have it.
    Sd1Flat,
    /// SD 2.x single file: `cond_stage_model.model.`, `open_clip`'s names.
    Sd2,
    /// SD 2.x saved by SGM: `conditioner.embedders.0.model.` with a width of 1024.
    Sd2Sgm,
    /// SD 2.x single file that kept transformers' names.
    Sd2Transformers,
    /// SDXL's first encoder: `conditioner.embedders.0.transformer.text_model.`
    SdxlFirst,
    /// The same without `text_model.`
    SdxlFirstFlat,
    /// SDXL's second encoder: `conditioner.embedders.1.model.`
    SdxlSecond,
    /// The same with `text_projection.weight`, a linear layer (Playground v2).
    SdxlSecondLinear,
    /// The SDXL refiner: `conditioner.embedders.0.model.` with a width of 1280.
    Refiner,
    /// One encoder, transformers' names, no projection.
    TextModel,
    /// The same without `text_model.`, as transformers 5.6 and later save it.
    TextModelFlat,
    /// One encoder of H or G, transformers' names, with a projection.
    TextModelWithProjection,
    /// One encoder of L, transformers' names, with a projection (SD3 repositories).
    TextModelLWithProjection,
    /// Written by ComfyUI's `CLIPSave`: with `logit_scale`.
    ComfySave,
    /// Written by an older ComfyUI: a bare `text_projection` among transformers' names.
    ComfySaveOld,
    /// ComfyUI's prefixes `clip_l.`, `clip_g.`, `clip_h.` left on.
    ComfyPrefixed,
    /// `text_encoders.clip_l.…` and the like, in files that hold everything.
    AllInOne,
    /// stable-diffusion.cpp's prefixes `te.`, `te1.`, `te2.`, `cond_stage_model.1.`
    SdCpp,
    /// One encoder in `open_clip`'s names, without an image encoder.
    OpenClipText,
    /// A whole `open_clip` model.
    OpenClip,
    /// A whole transformers `CLIPModel`.
    ClipModel,
    /// A diffusers folder, or one encoder's folder of it.
    Diffusers,
    /// A prefix that no known program writes before a complete encoder.
    Other,
}

impl Layout {
    /// A short name, as the documentation of layouts uses it.
    pub const fn id(self) -> &'static str {
        match self {
            Layout::Sd1 => "S1",
            Layout::Sd1Flat => "S1-flat",
            Layout::Sd2 => "S2",
            Layout::Sd2Sgm => "S2-sgm",
            Layout::Sd2Transformers => "SW",
            Layout::SdxlFirst => "SX-1",
            Layout::SdxlFirstFlat => "SX-flat",
            Layout::SdxlSecond => "SX-2",
            Layout::SdxlSecondLinear => "SX-2b",
            Layout::Refiner => "SR",
            Layout::TextModel => "C1",
            Layout::TextModelFlat => "C1-flat",
            Layout::TextModelWithProjection => "C2",
            Layout::TextModelLWithProjection => "C3",
            Layout::ComfySave => "C4",
            Layout::ComfySaveOld => "C4-old",
            Layout::ComfyPrefixed => "C5",
            Layout::AllInOne => "C6",
            Layout::SdCpp => "C7",
            Layout::OpenClipText => "C8",
            Layout::OpenClip => "open-clip",
            Layout::ClipModel => "clip-model",
            Layout::Diffusers => "diffusers",
            Layout::Other => "other",
        }
    }

    /// The layout of a tower by its root, its size, and what stands beside it.
    pub(crate) fn of(archive: &Archive, found: &Found) -> Layout {
        match Slot::of(&found.root) {
            Slot::Ldm => ldm(found),
            Slot::SecondLdm => Layout::SdCpp,
            Slot::Sgm(number) => sgm(archive, found, number),
            Slot::Free => by_prefix(archive, found),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id())
    }
}

/// Which place of a checkpoint a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// `cond_stage_model.`: the only text encoder of an LDM checkpoint.
    Ldm,
    /// `cond_stage_model.1.`: the second one of a checkpoint that stable-diffusion.cpp renamed.
    SecondLdm,
    /// `conditioner.embedders.N.`: one of several of an SGM checkpoint.
    Sgm(usize),
    /// Anything else: the prefix says nothing of a family.
    Free,
}

impl Slot {
    /// By the root's first words.
    pub(crate) fn of(root: &str) -> Slot {
        if root.starts_with("cond_stage_model.1.") {
            return Slot::SecondLdm;
        }
        if root.starts_with("cond_stage_model.") {
            return Slot::Ldm;
        }
        let number = super::names::split_numbered(root, "conditioner.embedders.");
        number.map_or(Slot::Free, |(number, _)| Slot::Sgm(number))
    }
}

fn ldm(found: &Found) -> Layout {
    let flat = !found.root.ends_with(huggingface::ROOT);
    match (found.style, found.encoder) {
        (Style::HuggingFace, EncoderId::ClipL) if flat => Layout::Sd1Flat,
        (Style::HuggingFace, EncoderId::ClipL) => Layout::Sd1,
        (Style::HuggingFace, EncoderId::OpenClipH) => Layout::Sd2Transformers,
        (Style::OpenClip, EncoderId::OpenClipH) => Layout::Sd2,
        (Style::OpenClip, EncoderId::ClipL) | (_, EncoderId::OpenClipG) => Layout::Other,
    }
}

fn sgm(archive: &Archive, found: &Found, number: usize) -> Layout {
    let flat = !found.root.ends_with(huggingface::ROOT);
    let linear = archive
        .entries
        .contains_key(&format!("{}text_projection.weight", found.root));
    match (found.style, found.encoder, number) {
        (Style::HuggingFace, EncoderId::ClipL, 0) if flat => Layout::SdxlFirstFlat,
        (Style::HuggingFace, EncoderId::ClipL, 0) => Layout::SdxlFirst,
        (Style::OpenClip, EncoderId::OpenClipG, 1) if linear => Layout::SdxlSecondLinear,
        (Style::OpenClip, EncoderId::OpenClipG, 1) => Layout::SdxlSecond,
        (Style::OpenClip, EncoderId::OpenClipG, 0) => Layout::Refiner,
        (Style::OpenClip, EncoderId::OpenClipH, 0) => Layout::Sd2Sgm,
        _ => Layout::Other,
    }
}

/// Towers outside LDM and SGM checkpoints.
fn by_prefix(archive: &Archive, found: &Found) -> Layout {
    let root = found.root.as_str();
    match root.split('.').next().unwrap_or("") {
        "clip_l" | "clip_g" | "clip_h" => return Layout::ComfyPrefixed,
        "text_encoders" => return Layout::AllInOne,
        "te" | "te1" | "te2" => return Layout::SdCpp,
        _ => {}
    }
    match found.style {
        Style::OpenClip if !matches!(root, "" | "text.") => Layout::Other,
        Style::OpenClip if archive.has_below("visual.") => Layout::OpenClip,
        Style::OpenClip => Layout::OpenClipText,
        Style::HuggingFace if !matches!(root, "" | huggingface::ROOT) => Layout::Other,
        Style::HuggingFace => standalone(archive, found),
    }
}

/// Files that hold one encoder in transformers' names and nothing, or an image encoder, beside it.
fn standalone(archive: &Archive, found: &Found) -> Layout {
    let there = |name: &str| archive.entries.contains_key(name);
    let projections = projection::candidates(found.style, &found.root);
    let projected = projections.into_iter().find(|(name, _)| there(name));
    match projected {
        _ if archive.has_below("vision_model.") => Layout::ClipModel,
        Some((_, true)) => Layout::ComfySaveOld,
        Some((_, false)) if there("logit_scale") => Layout::ComfySave,
        Some((_, false)) if found.encoder == EncoderId::ClipL => Layout::TextModelLWithProjection,
        Some((_, false)) => Layout::TextModelWithProjection,
        None if found.root.is_empty() => Layout::TextModelFlat,
        None => Layout::TextModel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots() {
        assert_eq!(Slot::of("cond_stage_model.model."), Slot::Ldm);
        assert_eq!(Slot::of("conditioner.embedders.1.model."), Slot::Sgm(1));
        assert_eq!(Slot::of("conditioner.embedders.11.model."), Slot::Sgm(11));
        assert_eq!(Slot::of("conditioner.embedders.x.model."), Slot::Free);
        assert_eq!(Slot::of(""), Slot::Free);
    }
}
