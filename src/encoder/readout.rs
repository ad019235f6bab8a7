//! THE table of facts: which hidden state a diffusion model reads, with or without the final layer
//! norm, and which pooled vector.
//!
//! `h[k]` is the residual stream after layer `k`; `h[0]` are the embeddings, `h[n]` is the last.
//!
//! | family | encoder | hidden state | pooled |
//! |---|---|---|---|
//! | SD 1.x | ViT-L | `LN(h[12])` | – |
//! | SD 2.x | ViT-H | `LN(h[23])` of 24 | – |
//! | SDXL | ViT-L | `h[11]`, no norm | – |
//! | SDXL, refiner | ViT-bigG | `h[31]`, no norm | `LN(h[32])` at the first end token × projection |
//!
//! Sources: Stability's `sgm/modules/encoders/modules.py` (`layer`, `always_return_pooled`), diffusers'
//! `encode_prompt` of each pipeline, `ComfyUI`'s `comfy/sd1_clip.py`, `sd2_clip.py`, `sdxl_clip.py`.

use crate::error::{Error, ErrorKind, Result};
use crate::weights::{EncoderId, Family};

use super::ClipConfig;

/// Which pooled vector to make: always the full tower and its final layer norm, at the first end
/// token, whatever hidden state is read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooled {
    /// None.
    Skip,
    /// Without projection (transformers' `pooler_output`).
    Normed,
    /// Times the projection (transformers' `text_embeds`), or an error where the file has none.
    Projected,
}

/// What is read out of one encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Readout {
    /// The hidden state after this many layers.
    pub layer: usize,
    /// Whether the tower's final layer norm is applied to it.
    pub final_norm: bool,
    /// Which pooled vector is made beside it.
    pub pooled: Pooled,
    /// After how many layers it is read: the whole tower's, in every tool but `InvokeAI`.
    pub pooled_layer: usize,
}

/// "Clip skip" in the numbering of the tool it was chosen in.
///
/// | result | A1111 | Forge | diffusers | `ComfyUI` |
/// |---|---|---|---|---|
/// | SD 1 `LN(h[12-k])` | k+1 | k+1 | k | -(k+1) |
/// | SD 2 `LN(h[23])`, the default | all | 1 | 0 | -2 |
/// | SD 2 `LN(h[24])` | – | – | – | -1 |
/// | SDXL `h[n-1]`, the default | all | 1 or 2 | 0 | -2 |
/// | SDXL `h[n-2]` | – | 3 | 1 | -3 |
/// | SDXL `h[n]`, no norm | – | – | – | -1 |
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClipSkip {
    /// The family's own state.
    #[default]
    Default,
    /// `ComfyUI`'s `stop_at_clip_layer`: -1, -2…
    ComfyUi(i32),
    /// A1111's "Clip skip": 1, 2…, which it applies to SD 1.x only.
    A1111(u32),
    /// Forge's "Clip skip": 1, 2…
    Forge(u32),
    /// diffusers' `clip_skip`: 0, 1…
    Diffusers(u32),
    /// stable-diffusion.cpp's `--clip-skip`: 1 is the last layer of every family.
    SdCpp(u32),
}

impl Readout {
    /// The readout of a family's encoder, moved by `skip`. `pooled` is what the caller wants beside
    /// it.
    pub fn of(
        family: Family,
        config: &ClipConfig,
        skip: ClipSkip,
        pooled: Pooled,
    ) -> Result<Readout> {
        let (layer, final_norm) = state(family, config, skip)?;
        let found = usize::try_from(layer)
            .ok()
            .filter(|layer| *layer <= config.layers);
        let layer = found.ok_or_else(|| no_such_state(family, config, skip))?;
        Ok(Readout {
            layer,
            final_norm,
            pooled,
            pooled_layer: config.layers,
        })
    }

    /// The same with the pooled vector of a tower that clip skip has shortened: as many layers fewer
    /// as the hidden state has moved from the family's own (`InvokeAI`).
    #[must_use]
    pub fn with_pooled_moved(mut self, family: Family, config: &ClipConfig) -> Readout {
        let default = match family {
            Family::Sd1 => config.full_layers,
            Family::Sd2 | Family::Sdxl | Family::Refiner => config.full_layers.saturating_sub(1),
        };
        let moved = default.saturating_sub(self.layer);
        self.pooled_layer = config.layers.saturating_sub(moved);
        self
    }

    /// The pooled vector that the family's U-Net takes from this encoder.
    pub const fn pooled_of(family: Family, encoder: EncoderId) -> Pooled {
        match (family, encoder) {
            (Family::Sdxl | Family::Refiner, EncoderId::OpenClipG) => Pooled::Projected,
            _ => Pooled::Skip,
        }
    }

    /// The pooled vector that a tool hands on although the U-Net takes none. ViT-L's stays
    /// unprojected (SD 1 checkpoints hold no projection); ViT-H's needs the whole tower and its
    /// projection, which diffusers' folders leave out.
    pub(crate) fn spare_pooled(family: Family, config: &ClipConfig, wanted: Pooled) -> Pooled {
        match (family, wanted) {
            (_, Pooled::Skip) | (Family::Sdxl | Family::Refiner, _) => Pooled::Skip,
            (Family::Sd1, _) | (Family::Sd2, Pooled::Normed) => Pooled::Normed,
            (Family::Sd2, Pooled::Projected) => {
                let whole = config.layers == config.full_layers && config.projection.is_some();
                if whole {
                    Pooled::Projected
                } else {
                    Pooled::Skip
                }
            }
        }
    }
}

/// Layer (possibly out of range) and final norm.
fn state(family: Family, config: &ClipConfig, skip: ClipSkip) -> Result<(i64, bool)> {
    let full = signed(config.full_layers);
    // SD 1.x and 2.x read through the final norm, SDXL and its refiner do not.
    let final_norm = matches!(family, Family::Sd1 | Family::Sd2);
    let default = match family {
        Family::Sd1 => full,
        Family::Sd2 | Family::Sdxl | Family::Refiner => full - 1,
    };
    Ok(match skip {
        ClipSkip::Default => (default, final_norm),
        ClipSkip::ComfyUi(value) if value >= 0 => return Err(bad_number("-1, -2, …", value)),
        // Deeper than the tower: "last, with norm" (`SDClipModel.clip_layer`, comfy/sd1_clip.py).
        ClipSkip::ComfyUi(value) if -i64::from(value) > full => (full, true),
        ClipSkip::ComfyUi(value) => (full + 1 + i64::from(value), final_norm),
        ClipSkip::A1111(0) | ClipSkip::Forge(0) | ClipSkip::SdCpp(0) => {
            return Err(bad_number("1, 2, …", 0));
        }
        ClipSkip::A1111(_) if family != Family::Sd1 => (default, final_norm),
        ClipSkip::A1111(value) | ClipSkip::Forge(value) => {
            (forge_layer(family, default, i64::from(value)), final_norm)
        }
        ClipSkip::Diffusers(value) => (default - i64::from(value), final_norm),
        // Beyond the embeddings its loop over layers finds no end (`CLIPEncoder` in src/model/te/clip.hpp).
        ClipSkip::SdCpp(value) if i64::from(value) > full + 1 => (full, final_norm),
        ClipSkip::SdCpp(value) => (full + 1 - i64::from(value), final_norm),
    })
}

/// SD counts from the default; SDXL takes 1 for 2 (Forge's `minimal_clip_skip`,
/// `backend/diffusion_engine/sdxl.py`).
fn forge_layer(family: Family, default: i64, value: i64) -> i64 {
    match family {
        Family::Sd1 | Family::Sd2 => default + 1 - value,
        Family::Sdxl | Family::Refiner => default + 2 - value.max(2),
    }
}

fn signed(layers: usize) -> i64 {
    i64::try_from(layers).expect("a layer count is small")
}

fn bad_number(numbers: &str, found: i32) -> Error {
    let message = format!("this clip skip is counted {numbers}; {found} is none of these");
    Error::new(ErrorKind::Request, message)
        .hint("ComfyUI counts -1, -2…; A1111 1, 2…; diffusers 0, 1…")
}

fn no_such_state(family: Family, config: &ClipConfig, skip: ClipSkip) -> Error {
    let message = format!(
        "{} asks for a state that {} does not have: the file has its layers 1 to {}",
        skip.in_words(),
        config.encoder,
        config.layers
    );
    let error = Error::new(ErrorKind::Request, message);
    match skip.allowed(family, config) {
        Some([first, last]) => error.hint(format!("take one from {first} to {last}")),
        None => error.hint("take a file with all layers"),
    }
}

impl ClipSkip {
    /// Whose number it is.
    fn in_words(self) -> String {
        match self {
            ClipSkip::Default => "the family's own clip skip".to_owned(),
            ClipSkip::ComfyUi(number) => format!("ComfyUI's clip skip {number}"),
            ClipSkip::A1111(number) => format!("A1111's clip skip {number}"),
            ClipSkip::Forge(number) => format!("Forge's clip skip {number}"),
            ClipSkip::Diffusers(number) => format!("diffusers' clip skip {number}"),
            ClipSkip::SdCpp(number) => format!("stable-diffusion.cpp's clip skip {number}"),
        }
    }

    /// The same numbering with another number, as the number is written and as it is meant.
    fn with(self, number: u32) -> (i64, ClipSkip) {
        let positive = i64::from(number);
        match self {
            ClipSkip::Default => (0, ClipSkip::Default),
            ClipSkip::ComfyUi(_) => (-positive, ClipSkip::ComfyUi(-number.cast_signed())),
            ClipSkip::A1111(_) => (positive, ClipSkip::A1111(number)),
            ClipSkip::Forge(_) => (positive, ClipSkip::Forge(number)),
            ClipSkip::Diffusers(_) => (positive, ClipSkip::Diffusers(number)),
            ClipSkip::SdCpp(_) => (positive, ClipSkip::SdCpp(number)),
        }
    }

    /// The first and the last number of its numbering that a tower has a state for.
    fn allowed(self, family: Family, config: &ClipConfig) -> Option<[i64; 2]> {
        let layers = 0..=signed(config.layers);
        let most = u32::try_from(config.full_layers + 2).ok()?;
        let all = (0..=most).map(|number| self.with(number));
        let has_state =
            |skip| state(family, config, skip).is_ok_and(|(layer, _)| layers.contains(&layer));
        let mut found = all.filter(|(_, skip)| has_state(*skip));
        let (first, _) = found.next()?;
        Some([first, found.next_back().map_or(first, |(last, _)| last)])
    }
}
