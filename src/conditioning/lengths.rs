//! How many rows hidden states of different lengths are brought to.

use std::num::NonZeroUsize;

/// `ComfyUI` repeats up to this many times the shorter length (`CONDCrossAttn.can_concat`,
/// comfy/conds.py).
const MOST_REPEATS: usize = 4;

/// The length that hidden states of two lengths are repeated to where both go through one forward:
/// the least common multiple. `None` if that is more than four times the shorter one: then they are
/// run apart. Repeating whole hidden states changes attention by rounding only.
///
/// ```
/// use sd_conditioner::conditioning::common_length;
/// assert_eq!(common_length(77, 154), Some(154));
/// assert_eq!(common_length(154, 231), Some(462));
/// assert_eq!(common_length(77, 385), None);
/// ```
pub fn common_length(one: usize, two: usize) -> Option<usize> {
    let shorter = NonZeroUsize::new(one.min(two))?;
    let (mut x, mut y) = (one, two);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    let common = (one / x).checked_mul(two)?;
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
        let more = [([3, 5], None), ([3, 4], Some(12)), ([0, 1], None)];
        for ([one, two], common) in cases.into_iter().chain(more) {
            assert_eq!(common_length(one, two), common, "{one} {two}");
        }
    }
}
