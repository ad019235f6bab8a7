//! What several test modules need.

pub mod close;
pub mod golden;
