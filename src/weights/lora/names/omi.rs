//! The Open Model Initiative's names, which `OneTrainer` writes.

use super::{Scheme, Slot};
use crate::weights::EncoderId::{ClipL, OpenClipG, OpenClipH};

/// The encoder is named.
pub(super) const SCHEME: Scheme = Scheme {
    name: "OMI",
    prefixes: &[
        ("clip_l.", Slot::Named(ClipL)),
        ("clip_h.", Slot::Named(OpenClipH)),
        ("clip_g.", Slot::Named(OpenClipG)),
    ],
    separator: '.',
};
