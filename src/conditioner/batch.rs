//! PLANS → HIDDEN STATES: one forward for each encoder over the distinct windows of all requests.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::encoder::{Encoded, Pooled, Readout, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{CONTEXT, Chunk, Splice, TokenId};

use super::embeddings::Embeddings;
use super::plan::Planned;
use super::{Part, Request};

/// What tells windows apart.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    ids: &'a [TokenId; CONTEXT],
    splices: &'a [Splice],
    /// Which set of embeddings the splices are names of.
    embeddings: usize,
    end: usize,
    hidden_keys: Option<&'a [bool; CONTEXT]>,
    readout: Readout,
}

/// Rows of the batch by the windows that wanted them.
pub(super) struct Rows {
    encoded: Encoded,
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

/// Distinct windows, collected.
struct Collector<'a> {
    rows: HashMap<Key<'a>, u32>,
    windows: Vec<Window<'a>>,
    readouts: Vec<Readout>,
    part: &'a Part,
}

/// Runs one encoder for all plans.
pub(super) fn encode(
    part: &Part,
    requests: &[Request<'_>],
    plans: &[&Planned],
    fillers: &[Option<Chunk>],
) -> Result<(Rows, Vec<Places>)> {
    let mut collector = Collector {
        rows: HashMap::new(),
        windows: Vec::new(),
        readouts: Vec::new(),
        part,
    };
    let mut places = Vec::with_capacity(plans.len());
    for ((request, plan), filler) in requests.iter().zip(plans).zip(fillers) {
        places.push(collector.plan(request.embeddings_given(), plan, filler.as_ref())?);
    }
    let encoded = part.clip.encode(&collector.windows, &collector.readouts)?;
    Ok((Rows { encoded }, places))
}

impl<'a> Collector<'a> {
    fn plan(
        &mut self,
        embeddings: Option<&Embeddings>,
        plan: &'a Planned,
        filler: Option<&'a Chunk>,
    ) -> Result<Places> {
        let readout = plan.readout.ok_or_else(|| missing("a readout"))?;
        let mut texts = Vec::with_capacity(plan.texts.len());
        for text in &plan.texts {
            let own = text.chunks.iter();
            let own = own.map(|chunk| self.window(chunk, None, readout, embeddings));
            let own = own.collect::<Result<Vec<u32>>>()?;
            let mut stages = Vec::with_capacity(text.stages.len());
            for stage in &text.stages {
                let windows = stage.windows.iter().zip(&stage.hidden_keys);
                let rows = windows
                    .map(|(chunk, keys)| self.window(chunk, Some(keys), readout, embeddings));
                stages.push(rows.collect::<Result<Vec<u32>>>()?);
            }
            texts.push((own, stages));
        }
        let mut one = |chunk: &'a Chunk| self.window(chunk, None, readout, embeddings);
        Ok(Places {
            texts,
            raw: plan.raw.as_ref().map(&mut one).transpose()?,
            filler: filler.map(&mut one).transpose()?,
        })
    }

    /// The row of a window in the batch; a new one if no equal window is there.
    fn window(
        &mut self,
        chunk: &'a Chunk,
        hidden_keys: Option<&'a [bool; CONTEXT]>,
        readout: Readout,
        embeddings: Option<&Embeddings>,
    ) -> Result<u32> {
        let key = Key {
            ids: chunk.ids(),
            splices: chunk.splices(),
            embeddings: match embeddings {
                Some(set) if !chunk.splices().is_empty() => set.identity(),
                _ => 0,
            },
            end: chunk.end(),
            hidden_keys: hidden_keys.filter(|keys| keys.contains(&true)),
            readout,
        };
        let next = u32::try_from(self.windows.len()).map_err(|_| missing("room in one call"))?;
        let hidden_keys = key.hidden_keys;
        let row = *self.rows.entry(key).or_insert(next);
        if row == next {
            self.windows
                .push(self.filled(chunk, hidden_keys, embeddings)?);
            self.readouts.push(readout);
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
        let index = Tensor::new(rows, self.encoded.hidden.device())?;
        Ok(self.encoded.hidden.index_select(&index, 0)?)
    }

    /// The pooled vector of one window, `[1, _]`.
    pub(super) fn pooled(&self, kind: Pooled, row: u32) -> Result<Option<Tensor>> {
        let all = self.encoded.pooled(kind);
        Ok(all.map(|all| all.narrow(0, row as usize, 1)).transpose()?)
    }
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Request, format!("{what} is missing"))
}
