//! How a request is read, for people who want to see it.

use super::plan::{self, Planned, Tower};
use super::{Conditioner, Request, prompted};
use crate::profile::PooledFrom;
use crate::prompt::{Note, Piece};
use crate::tokens::{Chunk, Chunks};
use crate::weights::{EncoderId, Family};

/// How one encoder reads a request. Spans are bytes of [`source`](Self::source).
///
/// ```
/// use sd_conditioner::{Family, Profile, Request, conditioner::readings_for};
/// let request = Request::new("a (cat:1.3)").profile(Profile::ComfyUi);
/// let readings = readings_for(Family::Sd1, &request);
/// assert_eq!(readings[0].texts[0].pieces.len(), 2);
/// assert_eq!(readings[0].windows, 1);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Reading {
    /// Whose.
    pub encoder: EncoderId,
    /// The text as it was given.
    pub source: String,
    /// What is encoded on its own: one text, or the texts of compel's blends and conjunctions.
    pub texts: Vec<ReadText>,
    /// How many windows the result has.
    pub windows: usize,
    /// Which window the pooled vector is read from.
    pub pooled: PooledFrom,
    /// That window, where it is none of the others ([`PooledFrom::RawText`]).
    pub raw: Option<Chunk>,
    /// What was cut, guessed or reproduced.
    pub notes: Vec<Note>,
}

/// One text of a [`Reading`].
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct ReadText {
    /// Its pieces; [`Chunk::pieces`] counts them.
    pub pieces: Vec<Piece>,
    /// Its windows.
    pub chunks: Chunks,
    /// What it is multiplied with when the texts are put together.
    pub weight: f64,
}

/// How a family's encoders would read a request. Needs no weights.
pub fn readings_for(family: Family, request: &Request<'_>) -> Vec<Reading> {
    let encoders = family.encoders().iter().copied();
    let tower = |id: EncoderId| Tower {
        id,
        width: id.width(),
    };
    readings(&encoders.map(tower).collect::<Vec<_>>(), request)
}

impl Conditioner {
    /// How these encoders would read a request. Runs nothing.
    pub fn readings(&self, request: &Request<'_>) -> Vec<Reading> {
        readings(&self.placed().towers(), request)
    }
}

fn readings(towers: &[Tower], request: &Request<'_>) -> Vec<Reading> {
    let brought = prompted::brought(request, towers);
    let dressed = brought.as_ref().map(|all| request.clone().embeddings(all));
    let request = dressed.as_ref().unwrap_or(request);
    let plans = plan::plan(towers, request, &[]).into_iter();
    let each = plans.zip(towers).enumerate();
    each.map(|(place, (plan, tower))| Reading {
        encoder: tower.id,
        source: request.text_for(place).into_owned(),
        windows: plan.windows,
        pooled: request.rules().pooled_from(),
        raw: plan.raw.clone(),
        notes: plan.notes.clone(),
        texts: texts(plan),
    })
    .collect()
}

fn texts(plan: Planned) -> Vec<ReadText> {
    let parts = plan.parts.into_iter();
    let weights = parts.flat_map(|part| part.weights.into_iter().map(move |one| one * part.weight));
    let texts = plan.texts.into_iter().zip(weights);
    let texts = texts.map(|(text, weight)| ReadText {
        pieces: text.pieces,
        chunks: text.chunks,
        weight,
    });
    texts.collect()
}
