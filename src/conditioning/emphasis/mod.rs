//! How strengths change hidden states, one file per tool. Nothing here runs the encoder: a method
//! says which other windows it needs ([`stages`]), and is handed their hidden states ([`apply`]).
//!
//! Start, end and padding rows have strength 1. The pooled vector is never changed (but see
//! [`Adv::affect_pooled`]).

mod a1111;
mod adv;
mod compel;
mod joined;
mod names;
mod rows;

pub use adv::{Adv, Interpretation, Masking, Normalization};
pub use compel::EndRows;
pub(crate) use compel::mix;
pub(crate) use joined::apply_joined;

use candle_core::Tensor;

use crate::error::Result;
use crate::tokens::{CONTEXT, Chunk, Chunks};

/// How a strength changes the hidden states of its tokens.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Emphasis {
    /// Away from the empty prompt's row: `e + (z - e) · w` (`ComfyUI`, `comfy/sd1_clip.py`).
    ComfyUi,
    /// `z · w`, then the mean of the window restored, over all texts of one call (A1111 and Forge,
    /// "Original").
    A1111,
    /// `z · w` (A1111 and Forge, "No norm").
    A1111NoNorm,
    /// Strengths are read and unused (A1111 and Forge, "Ignore").
    Ignore,
    /// Nothing is read: brackets are text (A1111 and Forge, "None").
    None,
    /// As `ComfyUI`, and for strengths below 1 a mean with the prompt whose words are masked out
    /// (compel, `DownweightMode.MASK`).
    Compel,
    /// The same with the words removed (compel, `DownweightMode.REMOVE`).
    CompelRemove,
    /// `z · w`, then the mean of the whole prompt restored (diffusers' `lpw_stable_diffusion.py`).
    Lpw,
    /// Away from the last row of the window (diffusers' `lpw_stable_diffusion_xl.py`).
    LpwSdxl,
    /// `z · w`, then the mean of the window restored, both encoders together
    /// (stable-diffusion.cpp).
    SdCpp,
    /// The custom node `ComfyUI_ADV_CLIP_emb`.
    Adv(Adv),
}

/// More windows to encode for one text: another form of it.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) windows: Vec<Chunk>,
    /// For each window the keys that attention does not see.
    pub(crate) hidden_keys: Vec<[bool; CONTEXT]>,
}

impl Stage {
    fn of(windows: Vec<Chunk>) -> Stage {
        Stage {
            hidden_keys: vec![[false; CONTEXT]; windows.len()],
            windows,
        }
    }

    /// The empty prompt.
    fn empty(chunks: &Chunks) -> Stage {
        Stage::of(vec![Chunk::empty(chunks.padding())])
    }
}

/// Which other forms of a text a method needs, in the order in which [`apply`] wants them.
/// `without` makes the windows that are left without one piece.
pub(crate) fn stages(
    emphasis: Emphasis,
    chunks: &Chunks,
    without: &mut dyn FnMut(u32) -> Chunks,
) -> Vec<Stage> {
    match emphasis {
        Emphasis::ComfyUi if chunks.has_emphasis() => vec![Stage::empty(chunks)],
        Emphasis::Compel => compel::masked(chunks),
        Emphasis::CompelRemove => compel::removed(chunks, without),
        Emphasis::Adv(adv) => adv::stages(adv, chunks),
        Emphasis::ComfyUi
        | Emphasis::A1111
        | Emphasis::A1111NoNorm
        | Emphasis::Ignore
        | Emphasis::None
        | Emphasis::Lpw
        | Emphasis::LpwSdxl
        | Emphasis::SdCpp => Vec::new(),
    }
}

/// How many windows the other forms of the whole text will have together, the empty prompt aside. Makes none.
pub(crate) fn n_windows_of_forms(emphasis: Emphasis, chunks: &Chunks) -> usize {
    let forms = match emphasis {
        Emphasis::Compel | Emphasis::CompelRemove => compel::n_forms(chunks),
        Emphasis::Adv(adv) => adv::n_forms(adv, chunks),
        Emphasis::ComfyUi
        | Emphasis::A1111
        | Emphasis::A1111NoNorm
        | Emphasis::Ignore
        | Emphasis::None
        | Emphasis::Lpw
        | Emphasis::LpwSdxl
        | Emphasis::SdCpp => 0,
    };
    forms.saturating_mul(chunks.len().get())
}

/// One text of one encoder.
#[derive(Clone, Debug)]
pub(crate) struct Encoding<'a> {
    pub(crate) chunks: &'a Chunks,
    /// `[windows, 77, width]`
    pub(crate) hidden: Tensor,
    pub(crate) stages: Vec<Staged<'a>>,
    /// How often the text is in the tool's call.
    pub(crate) times: usize,
}

/// What a stage gave.
#[derive(Clone, Debug)]
pub(crate) struct Staged<'a> {
    pub(crate) windows: &'a [Chunk],
    /// `[windows, 77, width]`
    pub(crate) hidden: Tensor,
}

/// Applies the strengths to all texts of one call, for one encoder. What works on both encoders
/// together ([`Emphasis::SdCpp`], [`Emphasis::LpwSdxl`]) is left for [`apply_joined`].
pub(crate) fn apply(emphasis: Emphasis, call: &[Encoding<'_>]) -> Result<Vec<Tensor>> {
    if emphasis == Emphasis::A1111 {
        return a1111::original(call);
    }
    call.iter().map(|one| apply_one(emphasis, one)).collect()
}

fn apply_one(emphasis: Emphasis, one: &Encoding<'_>) -> Result<Tensor> {
    match emphasis {
        Emphasis::ComfyUi => match one.stages.first() {
            Some(empty) => {
                rows::away_from(&empty.hidden, &one.hidden, &rows::strengths(one.chunks))
            }
            None => Ok(one.hidden.clone()),
        },
        Emphasis::A1111NoNorm => rows::scaled(&one.hidden, &rows::strengths(one.chunks)),
        Emphasis::Lpw => a1111::per_prompt(one),
        Emphasis::Compel | Emphasis::CompelRemove => compel::apply(one),
        Emphasis::Adv(adv) => adv::apply(adv, one),
        Emphasis::A1111
        | Emphasis::Ignore
        | Emphasis::None
        | Emphasis::LpwSdxl
        | Emphasis::SdCpp => Ok(one.hidden.clone()),
    }
}

/// The pooled vector that a method makes up, where it does that: `[1, width]`.
pub(crate) fn pooled(emphasis: Emphasis, one: &Encoding<'_>) -> Result<Option<Tensor>> {
    match emphasis {
        Emphasis::Adv(adv) if adv.affect_pooled => adv::pooled(adv, one),
        _ => Ok(None),
    }
}
