//! Causal self-attention of one head of one window, in one go: scores, softmax and mix stay in the
//! nearest cache.

use super::ahead::Ahead;
use super::panel::{COLUMNS, ROWS};
use super::simd::{Simd, exp};
use super::tile::{Factors, Float, tile};

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

/// Attends.
///
/// # Safety
///
/// All places hold what they are said to hold.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd, const N: usize, const A: usize>(head: Head) {
    let by_key = Factors {
        w: head.key,
        steps: (1, COLUMNS),
        x: head.query,
        depth: HEAD,
        ahead: Ahead::NOTHING,
    };
    product::<S, N, A>(by_key, ROWS, head.scores);
    for first in (0..COLUMNS).step_by(S::LANES) {
        softmax::<S>(head, first);
    }
    let by_channel = Factors {
        w: head.value,
        steps: (COLUMNS, 1),
        x: head.scores,
        depth: ROWS,
        ahead: Ahead::NOTHING,
    };
    product::<S, N, A>(by_channel, HEAD, head.out);
}

/// `rows` rows of a product.
#[inline(always)]
unsafe fn product<S: Simd, const N: usize, const A: usize>(
    factors: Factors,
    rows: usize,
    out: *mut f32,
) {
    std::slice::from_raw_parts_mut(out, rows * COLUMNS).fill(0.0);
    let at = |row: usize| Factors {
        w: factors.w.wrapping_add(row * factors.steps.0),
        ..factors
    };
    let whole = rows - rows % N;
    for row in (0..whole).step_by(N) {
        tile::<S, Float, N, A>(at(row), out.add(row * COLUMNS));
    }
    for row in whole..rows {
        tile::<S, Float, 1, A>(at(row), out.add(row * COLUMNS));
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
    for key in 0..ROWS {
        let shares = scores.add(key * COLUMNS);
        let share = if key < seen {
            S::mul(S::load(shares), part)
        } else {
            S::splat(0.0)
        };
        S::store(shares, share);
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
