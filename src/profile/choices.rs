//! The choices in which the reference tools differ, one type each.

use crate::conditioning::{Emphasis, EndRows, SizePrecision};
use crate::encoder::{Gelu, Pooled};
use crate::prompt::Dialect;
use crate::tokens::{ChunkRule, Cleaner, END_OF_TEXT, PoolAt, Split, TokenId, TokenRule, Trigger};
use crate::weights::EncoderId;

/// When an empty prompt becomes zeros (SDXL; for some tools the refiner, too).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmptyNegative {
    /// Never: the empty prompt is encoded.
    Encode,
    /// SDXL base: when no negative was given; `""` is encoded
    /// (`force_zeros_for_empty_prompt`, diffusers `pipeline_stable_diffusion_xl.py`).
    ZeroWhenAbsent,
    /// SDXL and refiner: when it is exactly `""` or absent
    /// (`force_zero_embeddings`, A1111 `modules/sd_models_xl.py`).
    ZeroWhenEmpty,
    /// SDXL base: the hidden states only, when it is `""` or absent; the pooled vector stays that
    /// of the empty prompt (stable-diffusion.cpp).
    ZeroContextWhenEmpty,
    /// SDXL base: each encoder whose text is `""`, on the positive side, too (`InvokeAI`).
    ZeroEachWhenEmpty,
}

/// What is taken out of a text before its grammar is read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TakenOut {
    /// Nothing.
    Nothing,
    /// `# comments`, and `<lora:…>` and its like of positive prompts (A1111, Forge).
    CommentsAndNetworks,
    /// `<lora:name:strength>` of positive prompts (stable-diffusion.cpp, once it is told a folder of
    /// them).
    Loras,
}

/// What the second encoder of SDXL reads where two texts are given.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecondText {
    /// The second text, empty or not.
    AsGiven,
    /// The first one where the second is `""` (`prompt_2 or prompt`, diffusers
    /// `pipeline_stable_diffusion_xl.py`).
    FirstIfEmpty,
    /// The first one where the second is white space (`InvokeAI`'s style prompt).
    FirstIfBlank,
    /// Both encoders read the first, a space and the second (diffusers'
    /// `lpw_stable_diffusion_xl.py`; implied by [`Split::LpwSdxl`]).
    Appended,
}

/// Which files of embeddings a tool knows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmbeddingFiles {
    /// Each encoder takes what a file has for it.
    Each,
    /// Those whose widths together are the model's: for the refiner `ViT-bigG`'s alone
    /// (`get_expected_shape`, A1111 `modules/textual_inversion/textual_inversion.py`).
    Model,
    /// The same, and of the refiner what SDXL's are: `ViT-L`'s and `ViT-bigG`'s
    /// (`embedding_expected_shape`, Forge `backend/diffusion_engine/sdxl.py`).
    Base,
    /// Those that have something for the first encoder. Any other name is one id: its own if the vocabulary
    /// has the bare name, else 0 (`load_embedding`, stable-diffusion.cpp `src/conditioning/conditioner.hpp`).
    First,
}

/// Which prompts a clip skip moves.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipScope {
    /// Both.
    Both,
    /// The positive one only: the negative is read where it always is (diffusers).
    PositiveOnly,
}

/// How `N` in "clip skip N" is counted.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipNumbering {
    /// -1, -2…
    ComfyUi,
    /// 1, 2…, for SD 1.x; the others ignore it (A1111).
    A1111,
    /// 1, 2…, for all families (Forge).
    Forge,
    /// 0, 1…
    Diffusers,
    /// 1, 2… from the last layer, whatever the family.
    SdCpp,
}

/// How positive and negative are brought to one length.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EqualLengths {
    /// The shorter one is followed by windows of the empty prompt (A1111's `pad_cond_uncond`,
    /// compel).
    EmptyWindows,
    /// Both are repeated to the least common multiple, if that is at most four times the shorter
    /// one (`CONDCrossAttn.can_concat`, `comfy/conds.py`; Forge); else as
    /// [`EmptyWindows`](Self::EmptyWindows).
    Repeat,
    /// The shorter one is followed by rows of zeros, which attention is meant to mask (`InvokeAI`).
    Zeros,
    /// The negative's last row is repeated, or the negative is cut (A1111's
    /// `pad_cond_uncond_v0`).
    LastRow,
}

/// What happens when the two encoders of SDXL need different numbers of windows for one text.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderLengths {
    /// The longer one is cut (`SDXLClipModel.encode_token_weights`, `comfy/sdxl_clip.py`). Two
    /// separate texts are extended all the same (`CLIPTextEncodeSDXL`).
    Cut,
    /// The shorter one is followed by windows of the empty prompt.
    Extend,
    /// The shorter one is followed by rows of zeros (`InvokeAI`).
    Zeros,
}

/// What the pooled vector is read from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PooledFrom {
    /// The first window.
    FirstWindow,
    /// The last window (diffusers' `lpw_stable_diffusion_xl.py`).
    LastWindow,
    /// A window of its own: the text as typed, syntax included, cut at 75 ids (compel).
    RawText,
}

/// After how many layers the pooled vector is read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PooledDepth {
    /// All of them, whatever the clip skip.
    Full,
    /// Without those that clip skip removes (`InvokeAI`).
    Skipped,
}

/// Every choice in which the reference tools differ. What each tool chooses stands in the code of
/// [`Profile::choices`](super::Profile::choices), one table of constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choices {
    /// The grammar of the text.
    pub dialect: Dialect,
    /// What the second encoder reads where two texts are given.
    pub second_text: SecondText,
    /// How strengths change hidden states.
    pub emphasis: Emphasis,
    /// What is taken out of the text first.
    pub taken_out: TakenOut,
    /// Text clean-up before ViT-L's tokenizer.
    pub cleaner_clip: Cleaner,
    /// Text clean-up before ViT-H's and ViT-bigG's tokenizer.
    pub cleaner_open_clip: Cleaner,
    /// Whether `!` is a special token of ViT-H's and ViT-bigG's tokenizer (it is their padding
    /// token in the published tokenizer folders).
    pub bang_is_special: bool,
    /// How long prompts are cut.
    pub split: Split,
    /// What is done to the end tokens of a prompt of several windows.
    pub end_rows: EndRows,
    /// How embeddings are named in the text.
    pub trigger: Trigger,
    /// Which files of embeddings are known.
    pub embedding_files: EmbeddingFiles,
    /// Which row the pooled vector is read from.
    pub pool_at: PoolAt,
    /// Which window it is read from; with [`Split::LpwSdxl`] always the last.
    pub pooled_from: PooledFrom,
    /// After how many layers.
    pub pooled_depth: PooledDepth,
    /// Which GELU the encoders have.
    pub gelu: Gelu,
    /// The pooled vector of families whose U-Net takes none.
    pub spare_pooled: Pooled,
    /// How clip skip is counted.
    pub skip_numbering: SkipNumbering,
    /// Which prompts it moves; with [`Split::Lpw`] always both.
    pub skip_scope: SkipScope,
    /// When an empty prompt becomes zeros.
    pub empty_negative: EmptyNegative,
    /// How positive and negative are brought to one length.
    pub equal_lengths: EqualLengths,
    /// What happens when the two encoders need different numbers of windows.
    pub encoder_lengths: EncoderLengths,
    /// The precision of SDXL's size numbers.
    pub size_precision: SizePrecision,
}

impl Choices {
    /// The windows' rule for one encoder.
    pub const fn chunk_rule(&self, encoder: EncoderId) -> ChunkRule {
        let tokens = match encoder {
            EncoderId::ClipL => TokenRule {
                cleaner: self.cleaner_clip,
                bang_is_special: false,
            },
            EncoderId::OpenClipH | EncoderId::OpenClipG => TokenRule {
                cleaner: self.cleaner_open_clip,
                bang_is_special: self.bang_is_special,
            },
        };
        let padding = padding(encoder, self.split);
        ChunkRule {
            tokens,
            padding,
            split: self.split,
            trigger: self.trigger,
            pool_at: self.pool_at,
            refill: refill(encoder, self.split) && padding != END_OF_TEXT,
        }
    }

    /// The window that the pooled vector is read from: `lpw_stable_diffusion_xl.py` keeps what its
    /// loop over windows had last.
    pub const fn pooled_from(&self) -> PooledFrom {
        match self.split {
            Split::LpwSdxl => PooledFrom::LastWindow,
            _ => self.pooled_from,
        }
    }

    /// The prompts that clip skip moves: `lpw_stable_diffusion.py` encodes both alike.
    pub const fn skip_scope(&self) -> SkipScope {
        match self.split {
            Split::Lpw => SkipScope::Both,
            _ => self.skip_scope,
        }
    }

    /// What the second encoder reads where two texts are given.
    pub const fn second_text(&self) -> SecondText {
        match self.split {
            Split::LpwSdxl => SecondText::Appended,
            _ => self.second_text,
        }
    }
}

/// The id after the end token: the end token itself for ViT-L, 0 for ViT-H and ViT-bigG
/// (`pad_token` of their `special_tokens_map.json`; `pad_with_end`, `comfy/sdxl_clip.py`). One tool
/// departs: diffusers' `lpw_stable_diffusion_xl.py` pads both with the end token.
const fn padding(encoder: EncoderId, split: Split) -> TokenId {
    match (encoder, split) {
        (EncoderId::ClipL, _) | (EncoderId::OpenClipG, Split::LpwSdxl) => END_OF_TEXT,
        (EncoderId::OpenClipH | EncoderId::OpenClipG, _) => 0,
    }
}

/// Whether everything after the first end token becomes padding: in A1111 and Forge always, in
/// stable-diffusion.cpp for ViT-bigG.
const fn refill(encoder: EncoderId, split: Split) -> bool {
    match split {
        Split::Comma { .. } => true,
        Split::SdCpp => matches!(encoder, EncoderId::OpenClipG),
        Split::Truncate | Split::Groups | Split::LongText(_) | Split::Lpw | Split::LpwSdxl => false,
    }
}
