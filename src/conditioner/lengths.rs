//! Bringing positive and negative to one length.

use crate::conditioning::{Conditioning, Guidance, common_length};
use crate::error::Result;
use crate::profile::EqualLengths;
use crate::prompt::{Note, NoteKind};
use crate::tokens::Split;

use super::Request;
use super::plan::Planned;

/// Where positive and negative are padded as windows, that is done before they are encoded.
/// `plan_again` makes a plan with at least so many ids. Returns a note where the tool's own way
/// does not apply.
pub(super) fn pad_to_each_other(
    pair: &[Request<'_>; 2],
    plans: &mut [Vec<Planned>],
    plan_again: impl Fn(&Request<'_>, &[usize]) -> Result<Vec<Planned>>,
) -> Result<Option<Note>> {
    if matches!(pair[0].rules().split, Split::Lpw | Split::LpwSdxl) {
        fill_ids(pair, plans, plan_again)?;
    }
    let windows = |plan: &Vec<Planned>| plan.first().map_or(1, |first| first.windows);
    let lengths = [windows(&plans[0]), windows(&plans[1])];
    let repeats = match pair[0].rules().equal_lengths {
        EqualLengths::Zeros | EqualLengths::LastRow => return Ok(None),
        // Who asks for a least length wants no multiple of it.
        EqualLengths::Repeat => pair.iter().all(|request| request.fewest_windows() == 0),
        EqualLengths::EmptyWindows => false,
    };
    if lengths[0] == lengths[1] || repeats && common_length(lengths[0], lengths[1]).is_some() {
        return Ok(None);
    }
    for planned in plans.iter_mut().flatten() {
        planned.windows = lengths[0].max(lengths[1]);
    }
    Ok(repeats.then(|| no_common_length(lengths)))
}

/// Gives both sides as many ids as the longer one has, for each encoder.
fn fill_ids(
    pair: &[Request<'_>; 2],
    plans: &mut [Vec<Planned>],
    plan_again: impl Fn(&Request<'_>, &[usize]) -> Result<Vec<Planned>>,
) -> Result<()> {
    let [first, second] = [&plans[0], &plans[1]];
    let both = first.iter().zip(second);
    let most: Vec<usize> = both
        .map(|(one, other)| n_ids(one).max(n_ids(other)))
        .collect();
    for (request, plan) in pair.iter().zip(plans) {
        *plan = plan_again(request, &most)?;
    }
    Ok(())
}

/// The tool would not batch such windows.
fn no_common_length(windows: [usize; 2]) -> Note {
    Note {
        kind: NoteKind::Length,
        span: 0..0,
        message: format!(
            "{} and {} windows have no common length up to four times the shorter one; the tool \
             runs them apart, here the shorter one is followed by empty windows",
            windows[0], windows[1]
        ),
    }
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
    if positive_side.tokens() == negative_side.tokens() {
        return Guidance::new(positive_side, negative_side);
    }
    let rule = positive.rules().equal_lengths;
    let [positive_side, negative_side] = lengthened(positive_side, negative_side, rule)?;
    Guidance::new(positive_side, negative_side)
}

/// The sides, positive first, made longer as the tool does it.
fn lengthened(
    positive: Conditioning,
    negative: Conditioning,
    rule: EqualLengths,
) -> Result<[Conditioning; 2]> {
    let lengths = [positive.tokens(), negative.tokens()];
    let longest = lengths[0].max(lengths[1]);
    Ok(match (rule, common_length(lengths[0], lengths[1])) {
        (EqualLengths::Repeat, Some(common)) => {
            [positive.tiled_to(common)?, negative.tiled_to(common)?]
        }
        (EqualLengths::Zeros, _) => [
            zero_filled(&positive, longest)?,
            zero_filled(&negative, longest)?,
        ],
        (EqualLengths::LastRow, _) => {
            let negative = negative.last_row_filled_to(lengths[0])?;
            [positive, negative]
        }
        // [`Guidance::new`] refuses unequal lengths; these were padded before they were encoded.
        (EqualLengths::Repeat | EqualLengths::EmptyWindows, _) => [positive, negative],
    })
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
