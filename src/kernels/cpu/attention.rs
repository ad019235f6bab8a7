//! Causal self-attention of one head of one window, in one go: scores, softmax and mix stay in the
//! nearest cache.

use std::ops::Range;

use super::panel::{COLUMNS, ROWS};
use super::simd::{Simd, exp};
use super::tile::{Before, Float, multiply, put};

/// Channels of a head.
pub(super) const HEAD: usize = 64;

/// Values that a head's scores take.
pub(super) const SCORES: usize = COLUMNS * COLUMNS;

/// `1/√64`
const SCALE: f32 = 0.125;

/// One head's place in its window's panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Panels of `HEAD` rows.
    pub(super) query: *const f32,
    pub(super) key: *const f32,
    pub(super) value: *const f32,
    /// `COLUMNS` values that are added to each key's scores, or null.
    pub(super) hidden_keys: *const f32,
    /// Room for `SCORES` values.
    pub(super) scores: *mut f32,
    /// A panel of `HEAD` rows.
    pub(super) out: *mut f32,
}

/// Attends, with `N` rows and `A` vectors of columns at once, at most five.
///
/// # Safety
///
/// All places hold what they are said to hold.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd, const N: usize, const A: usize>(head: Head) {
    let whole = ROWS - ROWS % N;
    for key in (0..whole).step_by(N) {
        scores::<S, N, A>(head, key);
    }
    for key in whole..ROWS {
        scores::<S, 1, A>(head, key);
    }
    for first in (0..COLUMNS).step_by(S::LANES) {
        softmax::<S>(head, first);
    }
    let whole = HEAD - HEAD % N;
    for channel in (0..whole).step_by(N) {
        mix::<S, N, A>(head, channel);
    }
    for channel in whole..HEAD {
        mix::<S, 1, A>(head, channel);
    }
}

/// Scores of `N` keys from `key` on, for the queries that see any of them, and for those beside them in a
/// vector.
#[inline(always)]
unsafe fn scores<S: Simd, const N: usize, const A: usize>(head: Head, key: usize) {
    for first in (0..COLUMNS).step_by(A * S::LANES) {
        match key.saturating_sub(first) / S::LANES {
            0 => scores_of::<S, N, A, 0>(head, key, first),
            1 => scores_of::<S, N, A, 1>(head, key, first),
            2 => scores_of::<S, N, A, 2>(head, key, first),
            3 => scores_of::<S, N, A, 3>(head, key, first),
            4 => scores_of::<S, N, A, 4>(head, key, first),
            _ => {}
        }
    }
}

/// The same for the vectors of queries from `FROM` on.
#[inline(always)]
unsafe fn scores_of<S: Simd, const N: usize, const A: usize, const FROM: usize>(
    head: Head,
    key: usize,
    first: usize,
) {
    if FROM >= A {
        return;
    }
    let mut sums = [[S::splat(0.0); A]; N];
    let (mut w, mut x) = (head.key.add(key), head.query.add(first));
    for _ in 0..HEAD {
        multiply::<S, Float, N, A, FROM>((w, 1), x, &mut sums);
        (w, x) = (w.wrapping_add(COLUMNS), x.wrapping_add(COLUMNS));
    }
    let to = head.scores.add(key * COLUMNS + first);
    put::<S, N, A, FROM>(&sums, Before::NOTHING, to);
}

/// `N` channels of the values, mixed. A vector of queries takes the keys up to its last query's.
#[inline(always)]
unsafe fn mix<S: Simd, const N: usize, const A: usize>(head: Head, channel: usize) {
    for first in (0..COLUMNS).step_by(A * S::LANES) {
        let mut sums = [[S::splat(0.0); A]; N];
        let from = (
            head.value.add(channel * COLUMNS),
            head.scores.add(first).cast_const(),
        );
        mix_keys::<S, N, A, 0>(from, 0..first + S::LANES, &mut sums);
        let some = |number: usize| first + number * S::LANES..first + (number + 1) * S::LANES;
        mix_keys::<S, N, A, 1>(from, some(1), &mut sums);
        mix_keys::<S, N, A, 2>(from, some(2), &mut sums);
        mix_keys::<S, N, A, 3>(from, some(3), &mut sums);
        mix_keys::<S, N, A, 4>(from, some(4), &mut sums);
        let to = head.out.add(channel * COLUMNS + first);
        put::<S, N, A, 0>(&sums, Before::NOTHING, to);
    }
}

/// Some keys, for the vectors of queries from `FROM` on.
#[inline(always)]
unsafe fn mix_keys<S: Simd, const N: usize, const A: usize, const FROM: usize>(
    (values, shares): (*const f32, *const f32),
    keys: Range<usize>,
    sums: &mut [[S::V; A]; N],
) {
    if FROM >= A {
        return;
    }
    for key in keys.start..keys.end.min(ROWS) {
        let (w, x) = (values.add(key), shares.add(key * COLUMNS));
        multiply::<S, Float, N, A, FROM>((w, COLUMNS), x, sums);
    }
}

/// Scores → shares, for the queries of one vector. A query sees the keys up to its own place.
#[inline(always)]
unsafe fn softmax<S: Simd>(head: Head, first: usize) {
    let scores = head.scores.add(first);
    let seen = (first + S::LANES).min(ROWS);
    let most = largest::<S>(head, first, seen);
    let sum = exponentials::<S>(scores, first, (seen, most));
    let part = S::div(S::splat(1.0), sum);
    for key in 0..seen {
        let shares = scores.add(key * COLUMNS);
        S::store(shares, S::mul(S::load(shares), part));
    }
}

/// The largest score that each query sees. What is added for hidden keys is kept with the scores.
#[inline(always)]
unsafe fn largest<S: Simd>(head: Head, first: usize, seen: usize) -> S::V {
    let queries = S::load(PLACES.as_ptr().add(first));
    let scores = head.scores.add(first);
    let nothing = S::splat(f32::NEG_INFINITY);
    let mut most = nothing;
    for (key, place) in PLACES[..seen].iter().enumerate() {
        let mut score = S::load(scores.add(key * COLUMNS));
        if !head.hidden_keys.is_null() {
            score = S::add(score, S::splat(*head.hidden_keys.add(key)));
            S::store(scores.add(key * COLUMNS), score);
        }
        let place = S::splat(*place);
        most = S::max(most, S::where_less(queries, place, nothing, score));
    }
    most
}

/// Scores → their exponentials where a query sees the key, else zeros; the sums of them.
#[inline(always)]
unsafe fn exponentials<S: Simd>(
    scores: *mut f32,
    first: usize,
    (seen, most): (usize, S::V),
) -> S::V {
    let queries = S::load(PLACES.as_ptr().add(first));
    let mut sum = S::splat(0.0);
    for (key, place) in PLACES[..seen].iter().enumerate() {
        let score = S::sub(S::load(scores.add(key * COLUMNS)), most);
        let share = exp::<S>(S::mul(score, S::splat(SCALE)));
        let share = S::where_less(queries, S::splat(*place), S::splat(0.0), share);
        sum = S::add(sum, share);
        S::store(scores.add(key * COLUMNS), share);
    }
    sum
}

/// 0, 1, 2, …
static PLACES: [f32; COLUMNS] = {
    let mut places = [0.0; COLUMNS];
    let mut at = 0;
    while at < COLUMNS {
        places[at] = at as f32;
        at += 1;
    }
    places
};
