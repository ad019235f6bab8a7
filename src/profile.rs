//! WHOSE NUMBERS: one value that fixes every choice in which the reference tools differ.

use crate::conditioning::SizePrecision;
use crate::encoder::Pooled;
use crate::prompt::Dialect;
use crate::tokens::{ChunkRule, Cleaner, END_OF_TEXT, Split, TokenId, TokenRule};
use crate::weights::EncoderId;

/// The tool whose numbers are wanted. [`choices`](Profile::choices) lists what that fixes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// diffusers 0.42 on transformers 5: one window, text beyond it is lost.
    #[default]
    Diffusers,
    /// `ComfyUI` 0.3.64 on transformers 5: groups, never zeroes.
    ComfyUi,
    /// AUTOMATIC1111's stable-diffusion-webui 1.10: comma backtrack, zeroes SDXL's empty negative.
    A1111,
}

/// When an empty negative prompt becomes zeros (SDXL and, for A1111, the refiner).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmptyNegative {
    /// Never: the empty prompt is encoded.
    Encode,
    /// SDXL base: when no negative was given; `""` is encoded
    /// (`force_zeros_for_empty_prompt`, diffusers `pipeline_stable_diffusion_xl.py`).
    ZeroWhenAbsent,
    /// SDXL and refiner: when it is exactly `""` or absent
    /// (`force_zero_embeddings`, A1111 modules/`sd_models_xl.py`).
    ZeroWhenEmpty,
}

/// Which prompts a clip skip moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipScope {
    /// Both.
    Both,
    /// The positive one only: the negative is read where it always is (diffusers).
    PositiveOnly,
}

/// How `N` in "clip skip N" is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipNumbering {
    /// -1, -2…
    ComfyUi,
    /// 1, 2…
    A1111,
    /// 0, 1…
    Diffusers,
}

/// How positive and negative are brought to one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EqualLengths {
    /// The shorter one is followed by windows of the empty prompt (A1111's `pad_cond_uncond`).
    EmptyWindows,
    /// Both are repeated to the least common multiple, if that is at most four times the shorter
    /// one (`CONDCrossAttn.can_concat`, comfy/conds.py); else as [`EmptyWindows`](Self::EmptyWindows).
    Repeat,
}

/// What happens when the two encoders of SDXL need different numbers of windows for one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderLengths {
    /// The longer one is cut (`SDXLClipModel.encode_token_weights`, `comfy/sdxl_clip.py`). Two
    /// separate texts are extended all the same (`CLIPTextEncodeSDXL`).
    Cut,
    /// The shorter one is followed by windows of the empty prompt.
    Extend,
}

/// Every choice in which the reference tools differ, for plain prompts.
///
/// | | diffusers | `ComfyUI` | A1111 |
/// |---|---|---|---|
/// | text clean-up of ViT-L | transformers 5 | transformers 5 | transformers 4 with ftfy |
/// | of ViT-H, ViT-bigG | transformers 5 | transformers 5 | `open_clip` |
/// | `!` special in ViT-H, ViT-bigG | yes | no | no |
/// | long prompts | cut at 75 | groups | comma backtrack 20 |
/// | clip skip | 0, 1…; positive only | -1, -2…; both | 1, 2…; both |
/// | empty negative, SDXL | zeros if absent | encoded | zeros |
/// | pooled vector of SD 1 and 2 | – | kept | – |
/// | sizes held in | model's type | f32 | model's type |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choices {
    /// The grammar of the text.
    pub dialect: Dialect,
    /// Text clean-up before ViT-L's tokenizer.
    pub cleaner_clip: Cleaner,
    /// Text clean-up before ViT-H's and ViT-bigG's tokenizer.
    pub cleaner_open_clip: Cleaner,
    /// Whether `!` is a special token of ViT-H's and ViT-bigG's tokenizer (it is their padding
    /// token in the published tokenizer folders).
    pub bang_is_special: bool,
    /// How long prompts are cut.
    pub split: Split,
    /// How clip skip is counted.
    pub skip_numbering: SkipNumbering,
    /// Which prompts it moves.
    pub skip_scope: SkipScope,
    /// When an empty negative becomes zeros.
    pub empty_negative: EmptyNegative,
    /// How positive and negative are brought to one length.
    pub equal_lengths: EqualLengths,
    /// What happens when the two encoders need different numbers of windows.
    pub encoder_lengths: EncoderLengths,
    /// The pooled vector of families whose U-Net takes none.
    pub spare_pooled: Pooled,
    /// The precision of SDXL's size numbers.
    pub size_precision: SizePrecision,
}

impl Profile {
    /// All profiles, in the order of their names in a list.
    pub const ALL: [Profile; 3] = [Profile::Diffusers, Profile::ComfyUi, Profile::A1111];

    /// `diffusers`, `comfyui`, `a1111`.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Diffusers => "diffusers",
            Profile::ComfyUi => "comfyui",
            Profile::A1111 => "a1111",
        }
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
    }

    /// What the tool does.
    pub const fn choices(self) -> Choices {
        match self {
            Profile::Diffusers => DIFFUSERS,
            Profile::ComfyUi => COMFY_UI,
            Profile::A1111 => A1111,
        }
    }
}

const DIFFUSERS: Choices = Choices {
    dialect: Dialect::Plain,
    cleaner_clip: Cleaner::HfFast,
    cleaner_open_clip: Cleaner::HfFast,
    bang_is_special: true,
    split: Split::Truncate,
    skip_numbering: SkipNumbering::Diffusers,
    skip_scope: SkipScope::PositiveOnly,
    empty_negative: EmptyNegative::ZeroWhenAbsent,
    equal_lengths: EqualLengths::EmptyWindows,
    encoder_lengths: EncoderLengths::Extend,
    spare_pooled: Pooled::Skip,
    size_precision: SizePrecision::Model,
};

const COMFY_UI: Choices = Choices {
    dialect: Dialect::Plain,
    cleaner_clip: Cleaner::HfFast,
    cleaner_open_clip: Cleaner::HfFast,
    bang_is_special: false,
    split: Split::Groups,
    skip_numbering: SkipNumbering::ComfyUi,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::Encode,
    equal_lengths: EqualLengths::Repeat,
    encoder_lengths: EncoderLengths::Cut,
    spare_pooled: Pooled::Projected,
    size_precision: SizePrecision::Full,
};

const A1111: Choices = Choices {
    dialect: Dialect::Plain,
    cleaner_clip: Cleaner::HfSlowFtfy,
    cleaner_open_clip: Cleaner::OpenClip,
    bang_is_special: false,
    split: Split::Comma { backtrack: 20 },
    skip_numbering: SkipNumbering::A1111,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::ZeroWhenEmpty,
    equal_lengths: EqualLengths::EmptyWindows,
    encoder_lengths: EncoderLengths::Extend,
    spare_pooled: Pooled::Skip,
    size_precision: SizePrecision::Model,
};

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
        ChunkRule {
            tokens,
            padding: padding(encoder),
            split: self.split,
        }
    }
}

/// The id after the end token: the end token itself for ViT-L, 0 for ViT-H and ViT-bigG, in every
/// tool that has a profile here (`pad_token` of their `special_tokens_map.json`;
/// `pad_with_end`, comfy/`sdxl_clip.py`).
const fn padding(encoder: EncoderId) -> TokenId {
    match encoder {
        EncoderId::ClipL => END_OF_TEXT,
        EncoderId::OpenClipH | EncoderId::OpenClipG => 0,
    }
}
