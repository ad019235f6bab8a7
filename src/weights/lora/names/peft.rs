//! A PEFT adapter of one encoder (`adapter_model.safetensors`): the wrapper's path, no encoder named.

use super::{Scheme, Slot};

/// Which encoder it is for shows in the sizes of its matrices.
pub(super) const SCHEME: Scheme = Scheme {
    name: "PEFT",
    prefixes: &[("base_model.model.", Slot::Unsaid)],
    separator: '.',
};
