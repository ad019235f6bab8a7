//! `inspect`: what a checkpoint holds.

use crate::flags::InspectFlags;
use crate::ui::Done;
use crate::weights;

/// Reads headers and prints.
pub(crate) fn run(flags: &InspectFlags) -> Done {
    let _ = flags.json;
    let path = std::slice::from_ref(&flags.file);
    weights::open_all(path, flags.variant.as_deref())?;
    anyhow::bail!("not written yet")
}
