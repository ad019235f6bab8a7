//! A number of windows → the number that is run. One captured graph serves every number up to its own.

use std::ops::Range;

/// Between two neighbours lies at most a third of the larger, so that little is run for nothing.
const BUCKETS: [usize; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];

/// The most windows in one forward; what is above runs in pieces.
const LARGEST_BUCKET: usize = 128;

/// The windows that are run for `windows` of them, 1 to 128.
pub(crate) fn bucket(windows: usize) -> usize {
    let fits = BUCKETS.into_iter().find(|bucket| *bucket >= windows);
    fits.unwrap_or(LARGEST_BUCKET)
}

/// The pieces in which `windows` of them are run.
pub(crate) fn pieces(windows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..windows)
        .step_by(LARGEST_BUCKET)
        .map(move |start| start..windows.min(start + LARGEST_BUCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_windows_and_wastes_less_than_half_of_them() {
        for windows in 1..=LARGEST_BUCKET {
            let bucket = bucket(windows);
            assert!(bucket >= windows && BUCKETS.contains(&bucket));
            assert!((bucket - windows) * 3 <= bucket, "{windows} in {bucket}");
        }
    }

    #[test]
    fn pieces_follow_each_other() {
        for windows in [0, 1, 127, 128, 129, 256, 300] {
            let mut next = 0;
            for piece in pieces(windows) {
                assert_eq!(piece.start, next);
                assert!(!piece.is_empty() && piece.len() <= LARGEST_BUCKET);
                next = piece.end;
            }
            assert_eq!(next, windows);
        }
    }
}
