//! What several test modules need.

pub(crate) mod checkpoints;
pub mod close;
pub(crate) mod entries;
pub mod golden;
pub(crate) mod spelling;
