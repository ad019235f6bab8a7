//! What several test modules share.

pub(crate) mod checkpoints;
pub(crate) mod entries;
