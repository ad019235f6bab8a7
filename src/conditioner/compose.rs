//! HIDDEN STATES → ONE PROMPT'S: strengths applied, texts mixed, parts joined, length made right.

use std::ops::Range;

use candle_core::Tensor;

use crate::conditioning::EncoderStates;
use crate::conditioning::emphasis::{self, Emphasis, Encoding, Staged, mix};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::{EncoderLengths, PooledFrom};
use crate::tokens::Chunk;
use crate::weights::{EncoderId, Family};

use super::batch::{Places, Rows};
use super::plan::{Planned, PlannedPart};
use super::{Part, Request};

/// Everything about one encoder's run.
pub(super) struct Run<'a> {
    pub(super) part: &'a Part,
    pub(super) family: Family,
    /// The place of the encoder in the family's order.
    pub(super) place: usize,
    pub(super) requests: &'a [Request<'a>],
    pub(super) plans: &'a [&'a Planned],
    pub(super) places: &'a [Places],
    pub(super) rows: &'a Rows,
}

impl Run<'_> {
    /// Each request's states. `calls` groups the requests that a tool encodes in one call.
    pub(super) fn states(&self, calls: &[Range<usize>]) -> Result<Vec<EncoderStates>> {
        let mut all = Vec::with_capacity(self.plans.len());
        for call in calls {
            let texts = self.emphasized(call.clone())?;
            for (index, texts) in call.clone().zip(texts) {
                all.push(self.request(index, &texts)?);
            }
        }
        Ok(all)
    }

    /// The texts of every request of a call, strengths applied.
    fn emphasized(&self, call: Range<usize>) -> Result<Vec<Vec<Tensor>>> {
        let mut encodings = Vec::with_capacity(call.len());
        for index in call.clone() {
            encodings.push(self.encodings(index)?);
        }
        let method = |index: usize| self.requests[index].rules().emphasis;
        let is_joint = call.clone().all(|index| method(index) == Emphasis::A1111);
        if is_joint && encodings.iter().all(|texts| texts.len() == 1) {
            let joint: Vec<Encoding<'_>> = encodings.into_iter().flatten().collect();
            let done = emphasis::apply(Emphasis::A1111, &joint)?;
            return Ok(done.into_iter().map(|text| vec![text]).collect());
        }
        let each = call.zip(encodings);
        each.map(|(index, texts)| {
            let apply = |text| Ok(emphasis::apply(method(index), &[text])?.remove(0));
            texts.into_iter().map(apply).collect()
        })
        .collect()
    }

    fn encodings(&self, index: usize) -> Result<Vec<Encoding<'_>>> {
        let (plan, places) = (self.plans[index], &self.places[index]);
        let texts = plan.texts.iter().zip(&places.texts);
        let texts = texts.map(|(text, (own, stages))| {
            let staged = text.stages.iter().zip(stages);
            let staged = staged.map(|(stage, rows)| {
                Ok(Staged {
                    windows: &stage.windows,
                    hidden: self.rows.hidden(rows)?,
                })
            });
            Ok(Encoding {
                chunks: &text.chunks,
                hidden: self.rows.hidden(own)?,
                stages: staged.collect::<Result<_>>()?,
                times: self.requests[index].times(),
            })
        });
        texts.collect()
    }

    fn request(&self, index: usize, texts: &[Tensor]) -> Result<EncoderStates> {
        let hidden = self.put_together(index, texts)?;
        let hidden = match self.requests[index].rules().emphasis {
            Emphasis::Adv(adv) if self.family == Family::Sdxl => {
                (hidden * adv.balances()[usize::from(self.place != 0)])?
            }
            _ => hidden,
        };
        Ok(EncoderStates {
            encoder: self.part.id,
            hidden,
            pooled: self.pooled(index)?,
        })
    }

    /// Parts one after the other, cut or filled to the planned length.
    fn put_together(&self, index: usize, texts: &[Tensor]) -> Result<Tensor> {
        let (plan, rules) = (self.plans[index], self.requests[index].rules());
        let filler = self.places[index].filler;
        let filler = filler.map(|row| self.rows.hidden(&[row])).transpose()?;
        let mut chunked = plan.texts.iter();
        let ended = texts.iter().map(|hidden| match chunked.next() {
            Some(text) => rules.end_rows.apply(&text.chunks, hidden),
            None => Ok(hidden.clone()),
        });
        let mut texts = ended.collect::<Result<Vec<_>>>()?.into_iter();
        let mut parts = Vec::with_capacity(plan.parts.len());
        for part in &plan.parts {
            let texts: Vec<Tensor> = texts.by_ref().take(part.n_texts).collect();
            parts.push(mixed(part, &texts, filler.as_ref())?);
        }
        let whole = Tensor::cat(&parts, 0)?;
        let zeros = rules.encoder_lengths == EncoderLengths::Zeros;
        sized(&whole, plan.windows, filler.as_ref().filter(|_| !zeros))
    }

    fn pooled(&self, index: usize) -> Result<Option<Tensor>> {
        let places = &self.places[index];
        let rules = self.requests[index].rules();
        let is_last = self.part.id == EncoderId::OpenClipG;
        if let Emphasis::Adv(_) = rules.emphasis
            && is_last
            && let Some(pooled) = emphasis::pooled(rules.emphasis, &self.encodings(index)?[0])?
        {
            return Ok(Some(pooled));
        }
        let texts = &places.texts;
        let row = match rules.pooled_from() {
            PooledFrom::RawText => places.raw,
            PooledFrom::FirstWindow => texts.first().and_then(|(own, _)| own.first().copied()),
            PooledFrom::LastWindow => texts.last().and_then(|(own, _)| {
                let last = own.len().min(self.plans[index].windows).checked_sub(1)?;
                own.get(last).copied()
            }),
        };
        row.map_or(Ok(None), |row| self.rows.pooled(row))
    }
}

/// The windows that fill results, where they are needed.
pub(super) fn fillers(requests: &[Request<'_>], plans: &[&Planned]) -> Vec<Option<Chunk>> {
    let fillers = plans.iter().zip(requests).map(|(plan, request)| {
        let rule = request.rules().encoder_lengths;
        needs_filler(plan, rule).then(|| plan.filler())
    });
    fillers.collect()
}

/// True when a plan needs the window of the empty prompt.
fn needs_filler(plan: &Planned, rule: EncoderLengths) -> bool {
    let mut texts = plan.texts.iter();
    let mut uneven = |part: &PlannedPart| {
        let lengths = texts
            .by_ref()
            .take(part.n_texts)
            .map(|text| text.chunks.len());
        let lengths: Vec<_> = lengths.collect();
        lengths.windows(2).any(|pair| pair[0] != pair[1])
    };
    let is_long = plan.windows > plan.own_windows() && rule != EncoderLengths::Zeros;
    is_long
        || plan
            .parts
            .iter()
            .any(|part| uneven(part) || !is_one(part.weight))
}

/// A blend of texts, or the only one; then the part's own weight, away from the empty prompt.
fn mixed(part: &PlannedPart, texts: &[Tensor], filler: Option<&Tensor>) -> Result<Tensor> {
    let longest = texts.iter().filter_map(|text| text.dim(0).ok()).max();
    let texts = texts
        .iter()
        .map(|text| sized(text, longest.unwrap_or(1), filler))
        .collect::<Result<Vec<_>>>()?;
    let part_is_text = texts.len() == 1 && !part.normalize && part.weights == [1.0];
    let whole = if part_is_text {
        texts[0].clone()
    } else {
        mix(&texts, &part.weights, part.normalize)?
    };
    match filler {
        Some(empty) if !is_one(part.weight) => {
            let moved = (whole.broadcast_sub(empty)? * f64::from(f32_of(part.weight)))?;
            Ok(moved.broadcast_add(empty)?)
        }
        _ => Ok(whole),
    }
}

/// Cut to so many windows, or followed by the filler, or by zeros without one.
fn sized(hidden: &Tensor, windows: usize, filler: Option<&Tensor>) -> Result<Tensor> {
    let (own, rows, width) = hidden.dims3()?;
    if own >= windows {
        return Ok(hidden.narrow(0, 0, windows)?);
    }
    let more = match filler {
        Some(filler) => filler.repeat((windows - own, 1, 1))?,
        None => Tensor::zeros(
            (windows - own, rows, width),
            hidden.dtype(),
            hidden.device(),
        )?,
    };
    Ok(Tensor::cat(&[hidden, &more], 0)?)
}

#[expect(clippy::float_cmp, reason = "neutral is exact")]
fn is_one(weight: f64) -> bool {
    weight == 1.0
}

#[expect(clippy::cast_possible_truncation, reason = "compel holds it in f32")]
fn f32_of(weight: f64) -> f32 {
    weight as f32
}

/// An error for a plan that is not complete.
pub(super) fn incomplete() -> Error {
    Error::new(ErrorKind::Request, "a request gave no conditioning")
}
