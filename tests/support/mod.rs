//! What several test modules need.

pub(crate) mod checkpoints;
pub(crate) mod close;
pub(crate) mod embeddings;
pub(crate) mod entries;
pub(crate) mod ggufs;
pub(crate) mod golden;
pub(crate) mod kept;
pub(crate) mod loras;
pub(crate) mod pickles;
pub(crate) mod spelling;
