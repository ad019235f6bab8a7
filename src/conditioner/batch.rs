//! PLANS → HIDDEN STATES: one forward for each encoder, and for each GELU that is wanted of it, over the
//! distinct windows of all requests whose states are not known yet.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::encoder::{Encoded, Pooled, Readout, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Activation;
use crate::stop::Stop;
use crate::tokens::{CONTEXT, Chunk, Splice, TokenId};

use super::cache::{self, Asked, Cache, Of, States};
use super::embeddings::Embeddings;
use super::plan::{Planned, Text};
use super::{Part, Request, stopping};

/// What tells windows apart.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    ids: &'a [TokenId; CONTEXT],
    splices: &'a [Splice],
    /// Which set of embeddings the splices are names of.
    embeddings: u64,
    end: usize,
    hidden_keys: Option<&'a [bool; CONTEXT]>,
    readout: Readout,
    activation: Activation,
}

/// How the windows of one plan are filled, run and read.
#[derive(Clone, Copy)]
struct Manner<'e> {
    embeddings: Option<&'e Embeddings>,
    activation: Activation,
    readout: Readout,
}

impl<'a> Key<'a> {
    fn of(
        chunk: &'a Chunk,
        hidden_keys: Option<&'a [bool; CONTEXT]>,
        manner: Manner<'_>,
    ) -> Key<'a> {
        Key {
            ids: chunk.ids(),
            splices: chunk.splices(),
            embeddings: match manner.embeddings {
                Some(set) if !chunk.splices().is_empty() => set.identity(),
                _ => 0,
            },
            end: chunk.end(),
            hidden_keys: hidden_keys.filter(|keys| keys.contains(&true)),
            readout: manner.readout,
            activation: manner.activation,
        }
    }
}

/// What each distinct window gave.
pub(super) struct Rows {
    states: Vec<States>,
}

/// An encoder, and what is known of its windows.
#[derive(Clone, Copy)]
pub(super) struct Cached<'a> {
    pub(super) part: &'a Part,
    pub(super) cache: &'a Cache,
    pub(super) device: &'a Device,
    pub(super) stop: &'a Stop,
}

/// Where the windows of one plan are in the batch.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// For each text: its own windows, then each stage's.
    pub(super) texts: Vec<(Vec<u32>, Vec<Vec<u32>>)>,
    pub(super) raw: Option<u32>,
    /// The window of the empty prompt, where it is needed.
    pub(super) filler: Option<u32>,
}

/// A window, and what is wanted of it.
struct Wanted<'a> {
    window: Window<'a>,
    readout: Readout,
    activation: Activation,
}

/// Distinct windows, collected.
struct Collector<'a> {
    rows: HashMap<Key<'a>, u32>,
    wanted: Vec<Wanted<'a>>,
    part: &'a Part,
}

/// Runs one encoder for all plans.
pub(super) fn encode(
    cached: Cached<'_>,
    requests: &[Request<'_>],
    plans: &[&Planned],
    fillers: &[Option<Chunk>],
) -> Result<(Rows, Vec<Places>)> {
    let mut collector = Collector {
        rows: HashMap::new(),
        wanted: Vec::new(),
        part: cached.part,
    };
    let mut places = Vec::with_capacity(plans.len());
    for ((request, plan), filler) in requests.iter().zip(plans).zip(fillers) {
        let manner = Manner {
            embeddings: request.embeddings_given(),
            activation: cached.part.activation(request.rules().gelu),
            readout: plan.readout.ok_or_else(|| missing("a readout"))?,
        };
        places.push(collector.plan(manner, plan, filler.as_ref())?);
    }
    let states = cached.states(&collector.wanted)?;
    Ok((Rows { states }, places))
}

impl Cached<'_> {
    /// The states of all windows; the encoder runs for those that are not known.
    fn states(&self, wanted: &[Wanted<'_>]) -> Result<Vec<States>> {
        let of = Of {
            identity: &self.part.identity,
            clip: &self.part.clip,
            device: self.device,
        };
        let asked = asked(&of, wanted)?;
        let mut found = self.cache.find(&of, &asked);
        let new = (0..asked.len()).filter(|place| found[*place].is_none());
        let new: Vec<usize> = new.collect();
        let made = self.encoded(wanted, &new)?.into_iter();
        let (places, kept): (Vec<usize>, Vec<(Asked, States)>) = made
            .map(|(place, states)| (place, (asked[place], states)))
            .unzip();
        self.cache.keep(&of, &kept)?;
        for (place, (_, states)) in places.into_iter().zip(kept) {
            found[place] = Some(states);
        }
        let all = found
            .into_iter()
            .map(|one| one.ok_or_else(|| missing("a window")));
        all.collect()
    }

    /// The windows at some places, with their places: one forward for each non-linearity, more of them where
    /// somebody is asked in between.
    fn encoded(&self, wanted: &[Wanted<'_>], places: &[usize]) -> Result<Vec<(usize, States)>> {
        let mut forwards: Vec<(Activation, Vec<usize>)> = Vec::new();
        for place in places {
            let activation = wanted[*place].activation;
            match forwards.iter_mut().find(|(other, _)| *other == activation) {
                Some((_, places)) => places.push(*place),
                None => forwards.push((activation, vec![*place])),
            }
        }
        let mut made = Vec::with_capacity(places.len());
        for (activation, places) in forwards {
            for places in places.chunks(stopping::windows_at_once(self.stop, self.device)) {
                self.stop.check()?;
                made.extend(self.forward(wanted, activation, places)?);
            }
        }
        Ok(made)
    }

    /// The windows at some places, which want the same non-linearity, with their places.
    fn forward(
        &self,
        wanted: &[Wanted<'_>],
        activation: Activation,
        places: &[usize],
    ) -> Result<Vec<(usize, States)>> {
        let one = |place: &usize| &wanted[*place];
        let windows = places.iter().map(|place| one(place).window.clone());
        let readouts: Vec<Readout> = places.iter().map(|place| one(place).readout).collect();
        let clip = self.part.with(activation);
        let encoded = clip.encode(&windows.collect::<Vec<_>>(), &readouts)?;
        let each = places.iter().zip(readouts).enumerate();
        each.map(|(row, (place, readout))| Ok((*place, row_of(&encoded, row, readout.pooled)?)))
            .collect()
    }
}

/// What the cache is asked for each window.
fn asked(of: &Of<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<Asked>> {
    let asked = wanted.iter().map(|one| {
        Ok(Asked {
            digest: cache::digest(of, &one.window, (one.readout, one.activation))?,
            is_empty: one.window.is_empty(),
        })
    });
    asked.collect()
}

/// One window's part of what a forward gave.
fn row_of(encoded: &Encoded, row: usize, pooled: Pooled) -> Result<States> {
    let pooled = encoded.pooled(pooled).map(|all| all.narrow(0, row, 1));
    Ok(States {
        hidden: encoded.hidden.narrow(0, row, 1)?,
        pooled: pooled.transpose()?,
    })
}

impl<'a> Collector<'a> {
    fn plan(
        &mut self,
        manner: Manner<'_>,
        plan: &'a Planned,
        filler: Option<&'a Chunk>,
    ) -> Result<Places> {
        let mut texts = Vec::with_capacity(plan.texts.len());
        for text in &plan.texts {
            texts.push(self.text(text, manner)?);
        }
        let mut one = |chunk: &'a Chunk| self.window(chunk, None, manner);
        Ok(Places {
            texts,
            raw: plan.raw.as_ref().map(&mut one).transpose()?,
            filler: filler.map(&mut one).transpose()?,
        })
    }

    /// The rows of a text's own windows, then of each stage's.
    fn text(&mut self, text: &'a Text, manner: Manner<'_>) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let own = text.chunks.iter();
        let own = own.map(|chunk| self.window(chunk, None, manner));
        let own = own.collect::<Result<Vec<u32>>>()?;
        let mut stages = Vec::with_capacity(text.stages.len());
        for stage in &text.stages {
            let windows = stage.windows.iter().zip(&stage.hidden_keys);
            let rows = windows.map(|(chunk, keys)| self.window(chunk, Some(keys), manner));
            stages.push(rows.collect::<Result<Vec<u32>>>()?);
        }
        Ok((own, stages))
    }

    /// The row of a window in the batch; a new one if no equal window is there.
    fn window(
        &mut self,
        chunk: &'a Chunk,
        hidden_keys: Option<&'a [bool; CONTEXT]>,
        manner: Manner<'_>,
    ) -> Result<u32> {
        let key = Key::of(chunk, hidden_keys, manner);
        let next = u32::try_from(self.wanted.len()).map_err(|_| missing("room in one call"))?;
        let hidden_keys = key.hidden_keys;
        let row = *self.rows.entry(key).or_insert(next);
        if row == next {
            self.wanted.push(Wanted {
                window: self.filled(chunk, hidden_keys, manner.embeddings)?,
                readout: manner.readout,
                activation: manner.activation,
            });
        }
        Ok(row)
    }

    /// The window with its vectors.
    fn filled(
        &self,
        chunk: &'a Chunk,
        hidden_keys: Option<&[bool; CONTEXT]>,
        embeddings: Option<&Embeddings>,
    ) -> Result<Window<'a>> {
        let mut window = Window::from(chunk);
        if let Some(keys) = hidden_keys {
            window = window.hiding(*keys);
        }
        let config = self.part.clip.config();
        for splice in chunk.splices() {
            let set = embeddings.ok_or_else(|| missing("the embeddings"))?;
            let tower = (self.part.id, config.width);
            let vector = set.vector(&splice.name, splice.vector, tower)?;
            window = window.with_vector(splice.row, vector);
        }
        Ok(window)
    }
}

impl Rows {
    /// Hidden states of some windows, `[windows, 77, width]`.
    pub(super) fn hidden(&self, rows: &[u32]) -> Result<Tensor> {
        let hidden = |row: &u32| &self.states[*row as usize].hidden;
        if let [row] = rows {
            // In storage of its own: what is handed out is neither the batch nor the cache.
            return Ok(hidden(row).force_contiguous()?);
        }
        Ok(Tensor::cat(
            &rows.iter().map(hidden).collect::<Vec<_>>(),
            0,
        )?)
    }

    /// The pooled vector that one window's readout named, `[1, _]`.
    pub(super) fn pooled(&self, row: u32) -> Result<Option<Tensor>> {
        let pooled = self.states[row as usize].pooled.as_ref();
        Ok(pooled.map(Tensor::force_contiguous).transpose()?)
    }
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Request, format!("{what} is missing"))
}

#[cfg(test)]
mod tests;
