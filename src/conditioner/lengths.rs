//! Bringing positive and negative to one length.

use std::num::NonZeroUsize;

use crate::conditioning::{Conditioning, Guidance};
use crate::error::Result;
use crate::profile::EqualLengths;
use crate::prompt::{Note, NoteKind};
use crate::tokens::Split;

use super::Request;
use super::plan::Planned;

/// `ComfyUI` repeats up to this many times the shorter length (`CONDCrossAttn.can_concat`,
/// comfy/conds.py).
const MOST_REPEATS: usize = 4;

/// Where positive and negative are padded as windows, that is done before they are encoded.
/// `plan_again` makes a plan with at least so many ids. Returns a note where the tool's own way
/// does not apply.
pub(super) fn pad_to_each_other(
    pair: &[Request<'_>; 2],
    plans: &mut [Vec<Planned>],
    plan_again: impl Fn(&Request<'_>, usize) -> Result<Vec<Planned>>,
) -> Result<Option<Note>> {
    if matches!(pair[0].rules().split, Split::Lpw | Split::LpwSdxl) {
        let most = plans.iter().flatten().map(n_ids).max().unwrap_or(0);
        for (request, plan) in pair.iter().zip(plans.iter_mut()) {
            *plan = plan_again(request, most)?;
        }
    }
    let windows = |plan: &Vec<Planned>| plan.first().map_or(1, |first| first.windows);
    let lengths = [windows(&plans[0]), windows(&plans[1])];
    let repeats = match pair[0].rules().equal_lengths {
        EqualLengths::Zeros | EqualLengths::LastRow => return Ok(None),
        EqualLengths::Repeat => true,
        EqualLengths::EmptyWindows => false,
    };
    if lengths[0] == lengths[1] || repeats && common_length(lengths).is_some() {
        return Ok(None);
    }
    for planned in plans.iter_mut().flatten() {
        planned.windows = lengths[0].max(lengths[1]);
    }
    Ok(repeats.then(|| Note {
        kind: NoteKind::Length,
        span: 0..0,
        message: format!(
            "{} and {} windows have no common length that ComfyUI would batch; it runs them \
             apart, here the shorter one is followed by empty windows",
            lengths[0], lengths[1]
        ),
    }))
}

/// How many ids a plan's texts have.
fn n_ids(plan: &Planned) -> usize {
    let windows = plan.chunks().flatten();
    windows.map(crate::tokens::Chunk::content).sum()
}

/// Windows of the empty prompt within the texts, until all plans have the same number.
pub(super) fn pad_inside<'a>(plans: impl Iterator<Item = &'a mut Vec<Planned>>) {
    let mut all: Vec<&mut Planned> = plans.flatten().collect();
    let longest = all.iter().map(|plan| plan.windows).max().unwrap_or(1);
    for plan in &mut all {
        if let [text] = plan.texts.as_mut_slice() {
            text.chunks = text.chunks.clone().padded_to(longest);
        }
        plan.windows = longest;
    }
}

/// Makes conditionings of one length, if they still differ.
pub(super) fn join(
    positive: &Request<'_>,
    both: [Conditioning; 2],
    note: Option<&Note>,
) -> Result<Guidance> {
    let [positive_side, negative_side] = both.map(|side| {
        let notes = side.notes().iter().chain(note).cloned().collect();
        side.with_notes(notes)
    });
    let lengths = [positive_side.tokens(), negative_side.tokens()];
    if lengths[0] == lengths[1] {
        return Guidance::new(positive_side, negative_side);
    }
    let longest = lengths[0].max(lengths[1]);
    match (positive.rules().equal_lengths, common_length(lengths)) {
        (EqualLengths::Repeat, Some(common)) => Guidance::new(
            positive_side.tiled_to(common)?,
            negative_side.tiled_to(common)?,
        ),
        (EqualLengths::Zeros, _) => Guidance::new(
            zero_filled(&positive_side, longest)?,
            zero_filled(&negative_side, longest)?,
        ),
        (EqualLengths::LastRow, _) => {
            let negative_side = negative_side.last_row_filled_to(lengths[0])?;
            Guidance::new(positive_side, negative_side)
        }
        // Refuses unequal lengths; these were padded before they were encoded.
        (EqualLengths::Repeat | EqualLengths::EmptyWindows, _) => {
            Guidance::new(positive_side, negative_side)
        }
    }
}

/// Zeros behind the rows, and a note that tells where they begin: the tool masks them.
fn zero_filled(side: &Conditioning, tokens: usize) -> Result<Conditioning> {
    let own = side.tokens();
    if own == tokens {
        return Ok(side.clone());
    }
    let note = Note {
        kind: NoteKind::Length,
        span: 0..0,
        message: format!("rows from {own} on are zeros; InvokeAI masks them in cross-attention"),
    };
    let notes = side.notes().iter().cloned().chain([note]).collect();
    Ok(side.zero_filled_to(tokens)?.with_notes(notes))
}

/// The least common multiple, unless it is more than four times the shorter length.
fn common_length([a, b]: [usize; 2]) -> Option<usize> {
    let shorter = NonZeroUsize::new(a.min(b))?;
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    let common = a / x * b;
    (common / shorter <= MOST_REPEATS).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::common_length;

    #[test]
    fn lengths_are_repeated_up_to_four_times() {
        let cases = [
            ([1, 2], Some(2)),
            ([1, 4], Some(4)),
            ([1, 5], None),
            ([2, 3], Some(6)),
        ];
        for (lengths, common) in cases
            .into_iter()
            .chain([([3, 5], None), ([3, 4], Some(12))])
        {
            assert_eq!(common_length(lengths), common, "{lengths:?}");
        }
    }
}
