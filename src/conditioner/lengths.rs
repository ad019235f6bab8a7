//! Bringing encoders, and positive and negative, to one length.

use std::num::NonZeroUsize;

use crate::conditioning::{Conditioning, Guidance};
use crate::error::Result;
use crate::profile::{EncoderLengths, EqualLengths};
use crate::prompt::{Note, NoteKind};
use crate::tokens::Chunks;

use super::{Planned, Request};

/// `ComfyUI` repeats up to this many times the shorter length (`CONDCrossAttn.can_concat`,
/// comfy/conds.py).
const MOST_REPEATS: usize = 4;

/// The encoders of one request get the same number of windows.
pub(super) fn match_encoders(all: &mut [Chunks], rule: EncoderLengths, two_texts: bool) {
    let lengths = all.iter().map(Chunks::len);
    let (Some(shortest), Some(longest)) = (lengths.clone().min(), lengths.max()) else {
        return;
    };
    if shortest == longest {
        return;
    }
    let cut = rule == EncoderLengths::Cut && !two_texts;
    for one in all {
        let chunks = one.clone();
        *one = if cut {
            chunks.cut_to(shortest)
        } else {
            chunks.padded_to(longest.get())
        };
    }
}

/// Where positive and negative are padded as windows, that is done before they are encoded.
/// Returns a note where the tool's own way does not apply.
pub(super) fn pad_to_each_other(
    pair: &[Request<'_>; 2],
    plans: &mut [Vec<Planned>],
) -> Option<Note> {
    let windows = |plan: &Vec<Planned>| plan.first().map_or(1, |first| first.chunks.len().get());
    let lengths = [windows(&plans[0]), windows(&plans[1])];
    if lengths[0] == lengths[1] {
        return None;
    }
    let repeats = pair[0].rules().equal_lengths == EqualLengths::Repeat;
    if repeats && common_length(lengths).is_some() {
        return None;
    }
    let longest = lengths[0].max(lengths[1]);
    for planned in plans.iter_mut().flatten() {
        planned.chunks = planned.chunks.clone().padded_to(longest);
    }
    repeats.then(|| Note {
        kind: NoteKind::Length,
        span: 0..0,
        message: format!(
            "{} and {} windows have no common length that ComfyUI would batch; it runs them \
             apart, here the shorter one is followed by empty windows",
            lengths[0], lengths[1]
        ),
    })
}

/// Repeats whole conditionings to their common length, if they still differ.
pub(super) fn join(
    positive: Conditioning,
    negative: Conditioning,
    note: Option<&Note>,
) -> Result<Guidance> {
    let lengths = [positive.tokens(), negative.tokens()];
    let noted = |side: Conditioning| {
        let notes = side.notes().iter().cloned().chain(note.cloned()).collect();
        side.with_notes(notes)
    };
    if lengths[0] == lengths[1] {
        return Guidance::new(noted(positive), noted(negative));
    }
    let Some(common) = common_length(lengths) else {
        return Guidance::new(positive, negative); // refuses unequal lengths
    };
    Guidance::new(positive.tiled_to(common)?, negative.tiled_to(common)?)
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
