//! How each tool finds the names of embeddings in a text.

mod a1111;
mod comfy;
mod words;

use std::ops::Range;

use super::segments::Build;

/// Where in a text the name of an embedding is looked for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Nowhere.
    #[default]
    None,
    /// `embedding:name` after a space, a line feed or at the start (`ComfyUI`, `comfy/sd1_clip.py`).
    Prefixed,
    /// The name's ids, anywhere within a piece, the longest first (A1111 and Forge,
    /// `modules/textual_inversion/textual_inversion.py`).
    Ids,
    /// The token string, also inside words; in another case it stands for the first vector only
    /// (diffusers' `maybe_convert_prompt` on transformers 5).
    Token,
    /// The token string in any case, also inside words, with all its vectors (compel with a
    /// `DiffusersTextualInversionManager`).
    TokenIds,
    /// `<name>` (`InvokeAI`).
    Angled,
    /// The name in any case, also inside words (stable-diffusion.cpp).
    Anywhere,
}

/// Adds the stretches of a text.
pub(super) fn place(build: &mut Build<'_>, text: &str, span: Range<usize>) {
    match build.rule.trigger {
        Trigger::None => {
            build.begin(span);
            let ids = build.encode(text);
            build.ids(&ids);
        }
        Trigger::Prefixed => comfy::place(build, text, span),
        Trigger::Ids => a1111::place(build, text, span),
        Trigger::Token | Trigger::TokenIds | Trigger::Angled | Trigger::Anywhere => {
            words::place(build, text, span);
        }
    }
}
