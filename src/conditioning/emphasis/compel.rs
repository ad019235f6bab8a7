//! compel's two steps (`get_embeddings_for_weighted_prompt_fragments`,
//! `compel/embeddings_provider.py`): away from the empty prompt, then for each fragment below 1 a
//! mean with the prompt that lacks it.

use std::f64::consts::FRAC_PI_2;

use candle_core::Tensor;

use super::{Encoding, Stage, rows};
use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{CONTEXT, Chunk, Chunks};

/// Strengths below this count as this when they decide how much of the fragment is left.
const LEAST: f64 = 1e-5;

/// A fragment below 1: its piece (1-based), its strength.
fn weak_fragments(chunks: &Chunks) -> Vec<(u32, f64)> {
    let mut weak: Vec<(u32, f64)> = Vec::new();
    for chunk in chunks {
        for (piece, strength) in chunk.pieces().iter().zip(chunk.strengths()) {
            if *strength < 1.0 && *piece != 0 && weak.last().is_none_or(|last| last.0 != *piece) {
                weak.push((*piece, *strength));
            }
        }
    }
    weak
}

/// How many forms of the whole text there will be.
pub(super) fn n_forms(chunks: &Chunks) -> usize {
    weak_fragments(chunks).len()
}

/// The empty prompt, and for each weak fragment the prompt with its rows hidden from attention.
pub(super) fn masked(chunks: &Chunks) -> Vec<Stage> {
    if !chunks.has_emphasis() {
        return Vec::new();
    }
    let mut stages = vec![Stage::empty(chunks)];
    for (piece, _) in weak_fragments(chunks) {
        stages.push(Stage {
            windows: chunks.iter().cloned().collect(),
            hidden_keys: hidden_rows(chunks, piece),
        });
    }
    stages
}

/// All rows from the first to the last of a fragment, whatever stands between them where it goes
/// on in the next window; the first and the last row of each window stay.
fn hidden_rows(chunks: &Chunks, piece: u32) -> Vec<[bool; CONTEXT]> {
    let pieces = chunks.iter().flat_map(|chunk| *chunk.pieces());
    let places: Vec<usize> = (0..)
        .zip(pieces)
        .filter_map(|(row, other)| (other == piece).then_some(row))
        .collect();
    let (first, last) = places
        .first()
        .zip(places.last())
        .map_or((1, 0), |(first, last)| (*first, *last));
    // A fragment that the others leave too little room is searched to the end of the window, end
    // token included.
    let halved = chunks.halved() == Some(piece);
    let last = if halved { CONTEXT - 1 } else { last };
    let is_delimiter = |row: usize| row == 0 || row == CONTEXT - 1 && !halved;
    let is_hidden = |row: &usize| (first..=last).contains(row) && !is_delimiter(row % CONTEXT);
    (0..chunks.len().get())
        .map(|window| std::array::from_fn(|row| is_hidden(&(window * CONTEXT + row))))
        .collect()
}

/// The empty prompt, and for each weak fragment the prompt without it.
pub(super) fn removed(chunks: &Chunks, without: &mut dyn FnMut(u32) -> Chunks) -> Vec<Stage> {
    if !chunks.has_emphasis() {
        return Vec::new();
    }
    let mut stages = vec![Stage::empty(chunks)];
    for (piece, _) in weak_fragments(chunks) {
        // A shorter prompt is filled with empty windows, a longer one cannot happen.
        let rest = without(piece - 1).padded_to(chunks.len().get());
        let windows: Vec<Chunk> = rest.iter().cloned().collect();
        stages.push(Stage::of(windows));
    }
    stages
}

/// `(base + Σ t·x) / (1 + Σ t)` with `t = tan((1 - w) · π/2)`.
pub(super) fn apply(one: &Encoding<'_>) -> Result<Tensor> {
    let Some((empty, without)) = one.stages.split_first() else {
        return Ok(one.hidden.clone());
    };
    let base = rows::away_from(&empty.hidden, &one.hidden, &rows::strengths(one.chunks))?;
    let mut versions = vec![base];
    for stage in without {
        let strengths = rows::strengths_of(stage.windows.iter());
        versions.push(rows::away_from(&empty.hidden, &stage.hidden, &strengths)?);
    }
    let weak = weak_fragments(one.chunks).into_iter();
    let shares = weak.map(|(_, strength)| ((1.0 - strength.max(LEAST)) * FRAC_PI_2).tan());
    let weights: Vec<f64> = std::iter::once(1.0).chain(shares).collect();
    mix(&versions, &weights, true)
}

/// The weighted sum of versions of one shape; with `normalize` the weights are divided by their
/// sum (`apply_embedding_weights`).
pub(crate) fn mix(versions: &[Tensor], weights: &[f64], normalize: bool) -> Result<Tensor> {
    let weights: Vec<f32> = weights.iter().map(|weight| rows::f32_of(*weight)).collect();
    let whole = if normalize { weights.iter().sum() } else { 1.0 };
    let mut terms = versions
        .iter()
        .zip(&weights)
        .map(|(version, weight)| -> Result<Tensor> {
            if version.dims() != versions[0].dims() {
                let message = "versions of one prompt have different shapes";
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            Ok((version * f64::from(weight / whole))?)
        });
    let first = terms
        .next()
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Request, "nothing to mix")))?;
    terms.try_fold(first, |sum, term| Ok((sum + term?)?))
}

/// What compel does with the end tokens of a prompt of several windows, after its strengths.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndRows {
    /// Nothing.
    #[default]
    Keep,
    /// The first window's goes into all (`COPY_FIRST_CLS_TOKEN`).
    CopyFirst,
    /// Their mean goes into all (`MERGE_CLS_TOKENS`).
    Merge,
}

impl EndRows {
    /// `hidden` is `[windows, 77, width]`.
    pub(crate) fn apply(self, chunks: &Chunks, hidden: &Tensor) -> Result<Tensor> {
        if self == EndRows::Keep || chunks.len().get() == 1 {
            return Ok(hidden.clone());
        }
        let ends = chunks.iter().map(Chunk::end).enumerate();
        let old = ends
            .clone()
            .map(|(window, row)| Ok(hidden.narrow(0, window, 1)?.narrow(1, row, 1)?))
            .collect::<Result<Vec<_>>>()?;
        let new = match self {
            EndRows::Keep | EndRows::CopyFirst => old[0].clone(),
            EndRows::Merge => Tensor::cat(&old, 0)?.mean_keepdim(0)?,
        };
        let windows = ends.map(|(window, row)| {
            let rows = hidden.narrow(0, window, 1)?;
            let (before, after) = (
                rows.narrow(1, 0, row)?,
                rows.narrow(1, row + 1, CONTEXT - row - 1)?,
            );
            Ok(Tensor::cat(&[&before, &new, &after], 1)?)
        });
        Ok(Tensor::cat(&windows.collect::<Result<Vec<_>>>()?, 0)?)
    }
}
