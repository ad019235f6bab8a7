//! CONDITIONING → CONDITIONING WITH A NOTE, where values are not finite. The reference tools hand such
//! values on, and so does this; but it says so.

use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::prompt::{Note, NoteKind};
use crate::tokens::Chunk;

use super::plan::{Planned, PlannedPart};

/// Adds the note. On a CPU the values are looked at; elsewhere nobody waits for them, and what the plan's
/// numbers alone make infinite or NaN is told.
pub(super) fn told(made: Conditioning, plan: &[Planned]) -> Result<Conditioning> {
    let is_finite = if made.context().device().is_cpu() {
        made.is_finite()?
    } else {
        plan.iter().all(has_finite_numbers)
    };
    if is_finite {
        return Ok(made);
    }
    let note = Note {
        kind: NoteKind::Strength,
        span: 0..0,
        message: "the result has values that are not finite (NaN or infinite), of which a U-Net makes nothing; the \
                  tool gives such, too: look for extreme strengths and LoRAs, and for weights that sum to 0"
            .to_owned(),
    };
    let notes = made.notes().iter().cloned().chain([note]).collect();
    Ok(made.with_notes(notes))
}

/// Whether all that states are multiplied with is finite as f32.
fn has_finite_numbers(plan: &Planned) -> bool {
    let mut strengths = plan.chunks().flatten().flat_map(Chunk::strengths);
    plan.parts.iter().all(has_finite_shares) && strengths.all(|strength| is_finite(*strength))
}

/// The weights of a blend, divided by their sum where it is normalized.
fn has_finite_shares(part: &PlannedPart) -> bool {
    let sum: f64 = part.weights.iter().sum();
    let whole = if part.normalize { sum } else { 1.0 };
    let mut shares = part.weights.iter().map(|weight| weight / whole);
    is_finite(part.weight) && shares.all(is_finite)
}

#[expect(clippy::cast_possible_truncation, reason = "the tools hold it in f32")]
fn is_finite(number: f64) -> bool {
    (number as f32).is_finite()
}
