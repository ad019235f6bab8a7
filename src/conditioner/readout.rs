//! What is read from an encoder for a request.

use crate::encoder::{ClipConfig, ClipSkip, Pooled, Readout};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::PooledDepth;
use crate::prompt::{Note, NoteKind};
use crate::weights::Family;

use super::Request;

pub(super) fn of(family: Family, request: &Request<'_>, config: &ClipConfig) -> Result<Readout> {
    let rules = request.rules();
    let skip = request.skip().ok_or_else(|| {
        let number = request.skip_number().unwrap_or_default();
        let message = format!("clip skip {number}, and this profile's numbers are not negative");
        Error::new(ErrorKind::Request, message)
            .hint("A1111 counts 1, 2…; diffusers 0, 1…; only ComfyUI counts -1, -2…")
    })?;
    let pooled = request
        .wanted_pooled()
        .unwrap_or_else(|| pooled(family, request, config));
    let readout = Readout::of(family, config, skip, pooled)?;
    Ok(match rules.pooled_depth {
        PooledDepth::Full => readout,
        PooledDepth::Skipped => readout.with_pooled_moved(family, config),
    })
}

/// A note about a clip skip that the tool does not apply to this family.
pub(super) fn ignored_skip(family: Family, request: &Request<'_>) -> Option<Note> {
    let ignored = matches!(request.skip()?, ClipSkip::A1111(2..)) && family != Family::Sd1;
    ignored.then(|| Note {
        kind: NoteKind::Unused,
        span: 0..0,
        message: format!(
            "A1111 applies clip skip to SD 1.x only; of {family} the usual state is read"
        ),
    })
}

/// What the U-Net takes, or what the tool hands on although the U-Net does not take it.
fn pooled(family: Family, request: &Request<'_>, config: &ClipConfig) -> Pooled {
    match Readout::pooled_of(family, config.encoder) {
        Pooled::Skip => Readout::spare_pooled(family, config, request.rules().spare_pooled),
        needed => needed,
    }
}
