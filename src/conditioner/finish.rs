//! STATES → CONDITIONING: encoders joined, empty prompts zeroed, sizes and notes added.

use std::collections::HashSet;

use crate::conditioning::emphasis::apply_joined;
use crate::conditioning::{Conditioning, EncoderStates, assemble_with};
use crate::error::Result;
use crate::profile::{Choices, EmptyNegative};
use crate::prompt::Note;
use crate::tokens::{Chunks, Split};
use crate::weights::Family;

use super::plan::Planned;
use super::{Inner, Placed, Request};

pub(super) fn finish(
    inner: &Inner,
    placed: &Placed,
    request: &Request<'_>,
    plan: &[Planned],
    (mut states, empty_call): (Vec<EncoderStates>, bool),
) -> Result<Conditioning> {
    let rules = request.rules();
    if rules.empty_negative == EmptyNegative::ZeroEachWhenEmpty && inner.family == Family::Sdxl {
        zero_each(request, &mut states)?;
    }
    let joined = joined(inner, rules, &plan[0].texts[0].chunks, &states)?;
    let joined = match zeroing(request, inner.family, empty_call) {
        Zeroing::Nothing => joined,
        Zeroing::Context => joined.with_zero_context()?,
        Zeroing::All => joined.zeroed()?,
    };
    let sized = joined.with_size(
        &request.size_hints(),
        request.is_negative(),
        (rules.size_precision, inner.dtype),
        &placed.device,
    )?;
    Ok(sized.with_notes(notes(plan)))
}

/// The encoders' states in one, with the strengths that are for what is joined.
fn joined(
    inner: &Inner,
    rules: &Choices,
    chunks: &Chunks,
    states: &[EncoderStates],
) -> Result<Conditioning> {
    assemble_with(inner.family, states, inner.output, |rows| {
        let rows = match rules.split {
            Split::LpwSdxl => rows.narrow(0, 0, chunks.rows().min(rows.dim(0)?))?,
            _ => rows,
        };
        apply_joined(rules.emphasis, chunks, rows)
    })
}

/// What becomes zeros.
enum Zeroing {
    Nothing,
    Context,
    All,
}

/// `empty_call` says that every text of the tool's call is empty.
fn zeroing(request: &Request<'_>, family: Family, empty_call: bool) -> Zeroing {
    let is_xl = matches!(family, Family::Sdxl | Family::Refiner);
    if !request.is_negative() || !is_xl {
        return Zeroing::Nothing;
    }
    match request.rules().empty_negative {
        EmptyNegative::ZeroWhenAbsent if family == Family::Sdxl && request.is_absent() => {
            Zeroing::All
        }
        EmptyNegative::ZeroWhenEmpty if empty_call => Zeroing::All,
        EmptyNegative::ZeroContextWhenEmpty if request.is_empty() => Zeroing::Context,
        EmptyNegative::Encode
        | EmptyNegative::ZeroWhenAbsent
        | EmptyNegative::ZeroWhenEmpty
        | EmptyNegative::ZeroContextWhenEmpty
        | EmptyNegative::ZeroEachWhenEmpty => Zeroing::Nothing,
    }
}

/// Each encoder whose text is empty gives zeros.
fn zero_each(request: &Request<'_>, states: &mut [EncoderStates]) -> Result<()> {
    for (place, state) in states.iter_mut().enumerate() {
        if request.is_empty_for(place) {
            state.hidden = state.hidden.zeros_like()?;
            let pooled = state.pooled.as_ref();
            state.pooled = pooled.map(candle_core::Tensor::zeros_like).transpose()?;
        }
    }
    Ok(())
}

/// The notes of all encoders, each once.
fn notes(plan: &[Planned]) -> Vec<Note> {
    let mut met = HashSet::new();
    let all = plan.iter().flat_map(|planned| &planned.notes);
    all.filter(|note| met.insert(*note)).cloned().collect()
}
