//! ONE ENCODER OF A LOAD, with each non-linearity that requests may want of it.

use crate::encoder::{ClipText, Gelu};
use crate::kernels::Activation;
use crate::weights::EncoderId;

use super::cache::Identity;

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) id: EncoderId,
    pub(super) identity: Identity,
    /// With its own.
    pub(super) clip: ClipText,
    /// With that of [`Gelu::Tanh`]. All tensors are those of `clip`, so it costs nothing until kernels
    /// prepare it.
    other: ClipText,
}

impl Part {
    pub(super) fn new(id: EncoderId, identity: Identity, clip: ClipText) -> Part {
        Part {
            id,
            identity,
            other: clip.with_activation(clip.config().activation_with(Gelu::Tanh)),
            clip,
        }
    }

    /// The non-linearity that such a GELU is here.
    pub(super) fn activation(&self, gelu: Gelu) -> Activation {
        self.clip.config().activation_with(gelu)
    }

    /// The encoder with one of its non-linearities.
    pub(super) fn with(&self, activation: Activation) -> &ClipText {
        if activation == self.clip.config().activation {
            &self.clip
        } else {
            &self.other
        }
    }
}
