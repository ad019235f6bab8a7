//! What several test modules need.

pub mod checkpoints;
pub mod close;
pub mod entries;
pub mod golden;
