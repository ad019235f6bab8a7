//! NAMES → TOWERS. Which tensors of a file are which of an encoder, decided on names and shapes
//! alone.

pub(crate) mod detect;
pub(crate) mod family;
pub(crate) mod fingerprint;
pub(crate) mod huggingface;
pub(crate) mod ignored;
pub(crate) mod names;
pub(crate) mod open_clip;
pub(crate) mod projection;
pub(crate) mod scaled;
pub(crate) mod single_file;
pub(crate) mod tower;

pub(crate) use names::Dimensions;
pub use single_file::Layout;
pub(crate) use tower::Tower;

/// How a tower's tensors are spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// transformers' names.
    HuggingFace,
    /// `open_clip`'s names.
    OpenClip,
}

impl Style {
    /// Its table.
    pub(crate) const fn naming(self) -> &'static names::Naming {
        match self {
            Style::HuggingFace => &huggingface::NAMING,
            Style::OpenClip => &open_clip::NAMING,
        }
    }
}
