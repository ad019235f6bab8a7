//! PLANS → HIDDEN STATES: one forward for each encoder over the distinct windows of all requests
//! whose states are not known yet.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::encoder::{Encoded, Pooled, Readout, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{CONTEXT, Chunk, Splice, TokenId};

use super::cache::{self, Asked, Cache, Of, States};
use super::embeddings::Embeddings;
use super::plan::{Planned, Text};
use super::{Part, Request};

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
}

impl<'a> Key<'a> {
    fn of(
        chunk: &'a Chunk,
        hidden_keys: Option<&'a [bool; CONTEXT]>,
        readout: Readout,
        embeddings: Option<&Embeddings>,
    ) -> Key<'a> {
        Key {
            ids: chunk.ids(),
            splices: chunk.splices(),
            embeddings: match embeddings {
                Some(set) if !chunk.splices().is_empty() => set.identity(),
                _ => 0,
            },
            end: chunk.end(),
            hidden_keys: hidden_keys.filter(|keys| keys.contains(&true)),
            readout,
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
    cached: Cached<'_>,
    requests: &[Request<'_>],
    plans: &[&Planned],
    fillers: &[Option<Chunk>],
) -> Result<(Rows, Vec<Places>)> {
    let mut collector = Collector {
        rows: HashMap::new(),
        windows: Vec::new(),
        readouts: Vec::new(),
        part: cached.part,
    };
    let mut places = Vec::with_capacity(plans.len());
    for ((request, plan), filler) in requests.iter().zip(plans).zip(fillers) {
        places.push(collector.plan(request.embeddings_given(), plan, filler.as_ref())?);
    }
    let states = cached.states(&collector.windows, &collector.readouts)?;
    Ok((Rows { states }, places))
}

impl Cached<'_> {
    /// The states of all windows; the encoder runs for those that are not known.
    fn states(&self, windows: &[Window<'_>], readouts: &[Readout]) -> Result<Vec<States>> {
        let of = Of {
            identity: &self.part.identity,
            clip: &self.part.clip,
            device: self.device,
        };
        let asked = asked(&of, windows, readouts)?;
        let mut found = self.cache.find(&of, &asked);
        let new = (0..asked.len()).filter(|place| found[*place].is_none());
        let new: Vec<usize> = new.collect();
        let made = self.encoded(windows, readouts, &new)?;
        let kept: Vec<(Asked, States)> = new.iter().map(|place| asked[*place]).zip(made).collect();
        self.cache.keep(&of, &kept)?;
        for (place, (_, states)) in new.into_iter().zip(kept) {
            found[place] = Some(states);
        }
        let all = found
            .into_iter()
            .map(|one| one.ok_or_else(|| missing("a window")));
        all.collect()
    }

    /// One forward over the windows at some places.
    fn encoded(
        &self,
        windows: &[Window<'_>],
        readouts: &[Readout],
        places: &[usize],
    ) -> Result<Vec<States>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let windows: Vec<Window<'_>> = places.iter().map(|place| windows[*place].clone()).collect();
        let readouts: Vec<Readout> = places.iter().map(|place| readouts[*place]).collect();
        let encoded = self.part.clip.encode(&windows, &readouts)?;
        let each = readouts.iter().enumerate();
        each.map(|(row, readout)| row_of(&encoded, row, readout.pooled))
            .collect()
    }
}

/// What the cache is asked for each window.
fn asked(of: &Of<'_>, windows: &[Window<'_>], readouts: &[Readout]) -> Result<Vec<Asked>> {
    let asked = windows.iter().zip(readouts).map(|(window, readout)| {
        Ok(Asked {
            digest: cache::digest(of, window, *readout)?,
            is_empty: window.is_empty(),
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
        embeddings: Option<&Embeddings>,
        plan: &'a Planned,
        filler: Option<&'a Chunk>,
    ) -> Result<Places> {
        let readout = plan.readout.ok_or_else(|| missing("a readout"))?;
        let mut texts = Vec::with_capacity(plan.texts.len());
        for text in &plan.texts {
            texts.push(self.text(text, readout, embeddings)?);
        }
        let mut one = |chunk: &'a Chunk| self.window(chunk, None, readout, embeddings);
        Ok(Places {
            texts,
            raw: plan.raw.as_ref().map(&mut one).transpose()?,
            filler: filler.map(&mut one).transpose()?,
        })
    }

    /// The rows of a text's own windows, then of each stage's.
    fn text(
        &mut self,
        text: &'a Text,
        readout: Readout,
        embeddings: Option<&Embeddings>,
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let own = text.chunks.iter();
        let own = own.map(|chunk| self.window(chunk, None, readout, embeddings));
        let own = own.collect::<Result<Vec<u32>>>()?;
        let mut stages = Vec::with_capacity(text.stages.len());
        for stage in &text.stages {
            let windows = stage.windows.iter().zip(&stage.hidden_keys);
            let rows =
                windows.map(|(chunk, keys)| self.window(chunk, Some(keys), readout, embeddings));
            stages.push(rows.collect::<Result<Vec<u32>>>()?);
        }
        Ok((own, stages))
    }

    /// The row of a window in the batch; a new one if no equal window is there.
    fn window(
        &mut self,
        chunk: &'a Chunk,
        hidden_keys: Option<&'a [bool; CONTEXT]>,
        readout: Readout,
        embeddings: Option<&Embeddings>,
    ) -> Result<u32> {
        let key = Key::of(chunk, hidden_keys, readout, embeddings);
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::DType;

    use super::*;
    use crate::conditioner::cache::{CacheOptions, DiskCache};
    use crate::encoder::{ClipConfig, ClipText, Kept};
    use crate::kernels::{Activation, Kernels, Reference};
    use crate::tokens::END_OF_TEXT;
    use crate::weights::{EncoderId, Synthetic, SyntheticSize};

    /// Counts the windows that go through attention, layer by layer.
    #[derive(Debug)]
    struct Counting {
        name: &'static str,
        plain: Reference,
        windows: AtomicUsize,
    }

    impl Kernels for Counting {
        fn name(&self) -> &'static str {
            self.name
        }

        fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
            self.plain.linear(x, weight, bias)
        }

        fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
            self.plain.layer_norm(x, weight, bias)
        }

        fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
            self.plain.activate(x, activation)
        }

        fn causal_attention(
            &self,
            qkv: &Tensor,
            heads: usize,
            hidden_keys: Option<&Tensor>,
        ) -> Result<Tensor> {
            self.windows.fetch_add(qkv.dim(0)?, Ordering::Relaxed);
            self.plain.causal_attention(qkv, heads, hidden_keys)
        }
    }

    /// An encoder with counting kernels, and a cache in a folder.
    fn part(name: &'static str, cache: &Cache) -> (Part, Arc<Counting>) {
        let counting = Arc::new(Counting {
            name,
            plain: Reference::new(&Device::Cpu).unwrap(),
            windows: AtomicUsize::new(0),
        });
        let source = Synthetic::new(EncoderId::OpenClipG, SyntheticSize::Tiny, 5);
        let config = ClipConfig::detect(EncoderId::OpenClipG, &source).unwrap();
        let (kept, kernels) = (Kept::from(DType::F32), Arc::clone(&counting));
        let clip = ClipText::load(
            &source,
            &config,
            kept,
            kernels,
            &Device::Cpu,
            &mut |_, _| (),
        );
        let part = Part {
            id: EncoderId::OpenClipG,
            identity: cache.identities(&[], 1).remove(0),
            clip: clip.unwrap(),
        };
        (part, counting)
    }

    /// The number of windows and layers that were run for `chunks`.
    fn run(cache: &Cache, (part, counting): &(Part, Arc<Counting>), chunks: &[Chunk]) -> usize {
        let windows: Vec<Window<'_>> = chunks.iter().map(Window::from).collect();
        let readout = Readout {
            layer: 1,
            final_norm: false,
            pooled: Pooled::Skip,
            pooled_layer: 1,
        };
        let device = &Device::Cpu;
        let cached = Cached {
            part,
            cache,
            device,
        };
        let before = counting.windows.load(Ordering::Relaxed);
        let states = cached.states(&windows, &vec![readout; windows.len()]);
        assert_eq!(states.unwrap().len(), windows.len());
        counting.windows.load(Ordering::Relaxed) - before
    }

    #[test]
    fn known_windows_do_not_run_the_encoder_and_other_kernels_know_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let options = CacheOptions {
            disk: Some(DiskCache {
                folder: folder.path().to_owned(),
                max_bytes: 1 << 30,
            }),
            ..CacheOptions::default()
        };
        let windows = [END_OF_TEXT, 0].map(Chunk::empty);
        let cache = Cache::new(&options).unwrap();
        let one = part("one", &cache);
        assert_eq!(run(&cache, &one, &windows[..1]), 1);
        assert_eq!(run(&cache, &one, &windows[..1]), 0);
        assert_eq!(run(&cache, &one, &windows), 1);
        assert_eq!(run(&cache, &one, &windows), 0);
        // The same encoder in the same cache, with the identity of the first.
        let mut other = part("other", &cache);
        other.0.identity = one.0.identity;
        assert_eq!(run(&cache, &other, &windows), 2);
        let later = Cache::new(&options).unwrap();
        assert_eq!(run(&later, &part("one", &later), &windows), 0);
        assert_eq!(run(&later, &part("third", &later), &windows), 2);
    }
}
