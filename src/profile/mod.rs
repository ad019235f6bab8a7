//! WHOSE NUMBERS: one value that fixes every choice in which the reference tools differ.

mod choices;
mod names;

pub use choices::{
    Choices, EmbeddingFiles, EmptyNegative, EncoderLengths, EqualLengths, PooledDepth, PooledFrom,
    SecondText, SkipNumbering, SkipScope, TakenOut,
};
pub use names::{DIALECTS, EQUAL_LENGTHS, GELUS, split_named};

use crate::conditioning::{Emphasis, EndRows, SizePrecision};
use crate::encoder::{Gelu, Pooled};
use crate::prompt::Dialect;
use crate::tokens::{Cleaner, LongText, PoolAt, Split, Trigger};

/// The tool whose numbers are wanted.
///
/// | | diffusers | `ComfyUI` | A1111 | Forge | compel | `InvokeAI` | stable-diffusion.cpp |
/// |---|---|---|---|---|---|---|---|
/// | grammar | none | `(a:1.2)` | `(a:1.2)`, `[a]`, BREAK | the same | `a++`, `.blend()` | the same | A1111's |
/// | strengths | – | from the empty prompt | mean restored | the same | masks below 1 | the same | mean restored |
/// | clean-up, ViT-L | transformers 5 | transformers 5 | ftfy | ftfy | transformers 5 | transformers 5 | ASCII |
/// | clean-up, H and bigG | transformers 5 | transformers 5 | `open_clip` | ftfy | transformers 5 | transformers 5 | ASCII |
/// | `!` special in H and bigG | yes | no | no | yes | yes | yes | no |
/// | long prompts | cut at 75 | groups | comma backtrack 20 | the same | sentences | sentences | every 75 |
/// | embeddings | given token | `embedding:name` | bare name | bare name | given token | `<name>` | bare name |
/// | GELU of H and bigG | exact | exact | exact | exact | exact | exact | tanh |
/// | pooled from | highest id | first window | first window | first window | raw text | raw text | first window |
/// | clip skip | 0, 1…; positive only | -1, -2… | 1, 2…; SD 1.x only | 1, 2… | 0, 1… | 0, 1… | 1, 2… |
/// | empty negative, SDXL | zeros if absent | encoded | zeros | zeros | encoded | zeros | context zeros |
/// | empty second text | the first | encoded | – | – | encoded | the first if blank | – |
/// | equal lengths | – | repeated | repeated | repeated | empty windows | zeros | repeated |
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// diffusers 0.42 on transformers 5: no grammar, one window, text beyond it is lost.
    #[default]
    Diffusers,
    /// `ComfyUI` 0.3.64 on transformers 5.
    ComfyUi,
    /// AUTOMATIC1111's stable-diffusion-webui 1.10.
    A1111,
    /// stable-diffusion-webui-forge (2025-06): A1111's rules on transformers' tokenizers.
    Forge,
    /// compel 2.5 as its wrappers `CompelForSD` and `CompelForSDXL` set it up.
    Compel,
    /// `InvokeAI` 6: compel's grammar, its own rules for lengths, zeros and clip skip.
    InvokeAi,
    /// stable-diffusion.cpp (2025-10), with its tanh form of GELU in ViT-H and ViT-bigG ([`Gelu::Tanh`]).
    SdCpp,
    /// No tool: no grammar, every 75 ids a new window, nothing zeroed.
    Plain,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Profile; 8] = [
        Profile::Diffusers,
        Profile::ComfyUi,
        Profile::A1111,
        Profile::Forge,
        Profile::Compel,
        Profile::InvokeAi,
        Profile::SdCpp,
        Profile::Plain,
    ];

    /// What the tool does.
    pub const fn choices(self) -> Choices {
        match self {
            Profile::Diffusers => DIFFUSERS,
            Profile::ComfyUi => COMFY_UI,
            Profile::A1111 => A1111,
            Profile::Forge => FORGE,
            Profile::Compel => COMPEL,
            Profile::InvokeAi => INVOKE_AI,
            Profile::SdCpp => SD_CPP,
            Profile::Plain => PLAIN,
        }
    }
}

const DIFFUSERS: Choices = Choices {
    dialect: Dialect::Plain,
    second_text: SecondText::FirstIfEmpty,
    emphasis: Emphasis::Ignore,
    taken_out: TakenOut::Nothing,
    cleaner_clip: Cleaner::HfFast,
    cleaner_open_clip: Cleaner::HfFast,
    bang_is_special: true,
    split: Split::Truncate,
    end_rows: EndRows::Keep,
    trigger: Trigger::Token,
    embedding_files: EmbeddingFiles::Each,
    pool_at: PoolAt::HighestId,
    pooled_from: PooledFrom::FirstWindow,
    pooled_depth: PooledDepth::Full,
    gelu: Gelu::Own,
    spare_pooled: Pooled::Skip,
    skip_numbering: SkipNumbering::Diffusers,
    skip_scope: SkipScope::PositiveOnly,
    empty_negative: EmptyNegative::ZeroWhenAbsent,
    equal_lengths: EqualLengths::EmptyWindows,
    encoder_lengths: EncoderLengths::Extend,
    size_precision: SizePrecision::Model,
};

const COMFY_UI: Choices = Choices {
    dialect: Dialect::ComfyUi,
    second_text: SecondText::AsGiven,
    emphasis: Emphasis::ComfyUi,
    bang_is_special: false,
    split: Split::Groups,
    trigger: Trigger::Prefixed,
    pool_at: PoolAt::Counted,
    spare_pooled: Pooled::Projected,
    skip_numbering: SkipNumbering::ComfyUi,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::Encode,
    equal_lengths: EqualLengths::Repeat,
    encoder_lengths: EncoderLengths::Cut,
    size_precision: SizePrecision::Full,
    ..DIFFUSERS
};

const A1111: Choices = Choices {
    dialect: Dialect::A1111,
    second_text: SecondText::AsGiven,
    emphasis: Emphasis::A1111,
    taken_out: TakenOut::CommentsAndNetworks,
    cleaner_clip: Cleaner::HfSlowFtfy,
    cleaner_open_clip: Cleaner::OpenClip,
    bang_is_special: false,
    split: Split::Comma { backtrack: 20 },
    trigger: Trigger::Ids,
    embedding_files: EmbeddingFiles::Model,
    pool_at: PoolAt::FirstEnd,
    skip_numbering: SkipNumbering::A1111,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::ZeroWhenEmpty,
    // It runs sides of different lengths apart, which repeated rows equal; `pad_cond_uncond` is off.
    equal_lengths: EqualLengths::Repeat,
    ..DIFFUSERS
};

const FORGE: Choices = Choices {
    cleaner_open_clip: Cleaner::HfSlowFtfy,
    bang_is_special: true,
    embedding_files: EmbeddingFiles::Base,
    skip_numbering: SkipNumbering::Forge,
    size_precision: SizePrecision::Full,
    ..A1111
};

const COMPEL: Choices = Choices {
    dialect: Dialect::Compel,
    second_text: SecondText::AsGiven,
    emphasis: Emphasis::Compel,
    split: Split::LongText(LongText::Sentences),
    trigger: Trigger::TokenIds,
    pooled_from: PooledFrom::RawText,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::Encode,
    ..DIFFUSERS
};

const INVOKE_AI: Choices = Choices {
    second_text: SecondText::FirstIfBlank,
    trigger: Trigger::Angled,
    pooled_depth: PooledDepth::Skipped,
    empty_negative: EmptyNegative::ZeroEachWhenEmpty,
    equal_lengths: EqualLengths::Zeros,
    encoder_lengths: EncoderLengths::Zeros,
    ..COMPEL
};

const SD_CPP: Choices = Choices {
    dialect: Dialect::SdCpp,
    emphasis: Emphasis::SdCpp,
    taken_out: TakenOut::Loras,
    cleaner_clip: Cleaner::SdCpp,
    cleaner_open_clip: Cleaner::SdCpp,
    split: Split::SdCpp,
    trigger: Trigger::Anywhere,
    embedding_files: EmbeddingFiles::First,
    gelu: Gelu::Tanh,
    skip_numbering: SkipNumbering::SdCpp,
    empty_negative: EmptyNegative::ZeroContextWhenEmpty,
    size_precision: SizePrecision::Full,
    ..A1111
};

const PLAIN: Choices = Choices {
    second_text: SecondText::AsGiven,
    cleaner_clip: Cleaner::OpenAi,
    cleaner_open_clip: Cleaner::OpenClip,
    bang_is_special: false,
    split: Split::Comma { backtrack: 0 },
    pool_at: PoolAt::FirstEnd,
    skip_scope: SkipScope::Both,
    empty_negative: EmptyNegative::Encode,
    size_precision: SizePrecision::Full,
    ..DIFFUSERS
};
