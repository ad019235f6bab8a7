//! One encoder on a stream of its own: its buffers, its products, its captured graphs.
//!
//! candle enqueues on a stream that is another one in every thread. So nothing here runs there: a forward
//! takes its ids from the host, runs on the engine's stream, and candle's stream waits for it before it
//! copies the results out. The next forward waits for that copy. Two encoders overlap for that reason.
#![expect(unsafe_code, reason = "buffers are copied by address")]

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::result::stream::get_priority_range;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};

use super::buffers::{Buffers, Wanted, copy, send};
use super::failure::{Tried, device_error};
use super::functions::Address;
use super::graph::Graph;
use super::product::Product;
use super::running::Manner;
use super::shared::Shared;
use super::trying::Unknown;
use super::weights::Weights;
use crate::error::Result;
use crate::kernels::plan::{
    Place, ProductShape, Recent, Sizes, Spec, Step, bucket, input_words, steps, write_input,
};
use crate::kernels::{Activation, Batch, Options, Tune};

/// Captured graphs that one encoder keeps. Each costs the card some hundred KiB and no buffers.
const MOST_GRAPHS: usize = 12;

/// Forwards that are remembered to have been run.
const MOST_SEEN: usize = 64;

/// After so many failed captures an engine runs without.
const MOST_FAILURES: usize = 3;

#[derive(Debug)]
pub(super) struct Engine {
    /// First, so that graphs go before the kernels and tensors that they point to.
    state: Mutex<State>,
    pub(super) weights: Weights,
    pub(super) stream: Arc<CudaStream>,
    pub(super) shared: Arc<Shared>,
    pub(super) activation: Activation,
    pub(super) heads: usize,
    pub(super) capture: bool,
    tune: Tune,
    /// How kernels follow each other, unless that is to be measured.
    pub(super) follow: Option<Manner>,
}

/// What changes from call to call.
#[derive(Debug)]
pub(super) struct State {
    /// Before `memory`: it holds addresses in it.
    graphs: Recent<(usize, Spec), Graph>,
    memory: Option<Buffers>,
    /// What was run once without a graph.
    seen: Recent<(usize, Spec), ()>,
    pub(super) products: HashMap<ProductShape, Product>,
    /// Products of which it is to be measured what makes them best.
    pub(super) unmeasured: HashSet<ProductShape>,
    /// The fastest manner for a number of windows.
    pub(super) manners: HashMap<usize, Manner>,
    /// What was found on the way, a line each.
    pub(super) measured: Vec<String>,
    failures: usize,
    /// What the last capture that failed failed with.
    pub(super) failure: Option<String>,
    /// When the last upload has been read from the host's memory.
    uploaded: CudaEvent,
    /// When the last forward is through.
    done: CudaEvent,
    /// When candle's stream has copied the last results.
    copied: CudaEvent,
}

impl State {
    fn new(shared: &Shared) -> Result<State> {
        let event = || shared.context.new_event(None).tried("make an event");
        Ok(State {
            graphs: Recent::new(MOST_GRAPHS),
            memory: None,
            seen: Recent::new(MOST_SEEN),
            products: HashMap::new(),
            unmeasured: HashSet::new(),
            manners: HashMap::new(),
            measured: Vec::new(),
            failures: 0,
            failure: None,
            uploaded: event()?,
            done: event()?,
            copied: event()?,
        })
    }
}

/// Encoders of more channels than this are the longer one of a family's two.
const USUAL_WIDTH: usize = 1024;

/// A vector for a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spliced<'a> {
    pub(super) row: usize,
    pub(super) from: Origin<'a>,
}

/// Where a vector lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    Host(&'a [f32]),
    /// On the card, from work of candle's stream.
    Card(Address),
}

impl Engine {
    /// `candle` is the calling thread's stream: tensors that this thread made may still be on their way.
    /// Those of other threads are there (an encoder is handed out when its tensors are).
    pub(super) fn new(
        candle: &CudaStream,
        shared: Arc<Shared>,
        weights: Weights,
        (heads, activation): (usize, Activation),
        options: &Options,
    ) -> Result<Engine> {
        // Not the whole context: that may not wait while another thread captures.
        candle.synchronize().tried("finish its work")?;
        let stream = own_stream(&shared.context, weights.sizes.width)?;
        let state = Mutex::new(State::new(&shared)?);
        Ok(Engine {
            state,
            weights,
            stream,
            shared,
            activation,
            heads,
            capture: options.capture,
            tune: options.tune,
            follow: Manner::wanted(options.follow),
        })
    }

    /// Graphs that are ready to be replayed.
    pub(super) fn captured(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.graphs.len()
    }

    /// Why a capture failed, if one did.
    pub(super) fn capture_failure(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failure.clone()
    }

    /// What was measured so far, a line each.
    pub(super) fn measured(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.measured.clone()
    }

    /// Encodes some windows of a batch and copies what is wanted out, all of it enqueued only. What is wanted is
    /// asked for when the forward is on its way, so that it may take its time.
    /// `spliced` must stay where it is until candle's stream has run what this enqueues on it.
    pub(super) fn encode(
        &self,
        candle: &CudaStream,
        (batch, windows): (&Batch<'_>, Range<usize>),
        spec: &Spec,
        spliced: &[Spliced<'_>],
        wanted: impl FnOnce() -> Result<Vec<Wanted>>,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let n_windows = windows.len();
        let size = bucket(n_windows);
        self.make_room(&mut state, size)?;
        self.stream.wait(&state.copied).tried("wait for a copy")?;
        // Not for others': candle's stream may wait for another encoder.
        let made_there = |one: &Spliced<'_>| matches!(one.from, Origin::Card(_));
        if spliced.iter().any(made_there) {
            self.stream.join(candle).tried("wait for vectors")?;
        }
        let fill = |state: &mut State| self.fill(state, (batch, &windows), size, spliced);
        self.run(&mut state, size, spec, &fill)?;
        state.done.record(&self.stream).tried("record an event")?;
        let wanted = wanted()?;
        candle.wait(&state.done).tried("wait for a forward")?;
        let memory = memory(&state)?;
        for one in &wanted {
            let sizes = &self.weights.sizes;
            let values = Sizes::rows(one.from, n_windows) * sizes.row(one.from);
            let from = memory.at(one.from);
            copy(candle, from, one.to, values * sizes.kind(one.from).bytes())?;
        }
        state.copied.record(candle).tried("record an event")
    }

    /// The steps, from a graph if there is one or one can be made.
    fn run(
        &self,
        state: &mut State,
        size: usize,
        spec: &Spec,
        fill: &dyn Fn(&mut State) -> Result<()>,
    ) -> Result<()> {
        let key = (size, *spec);
        if state.graphs.get(&key).is_some() {
            fill(state)?;
            let graph = state.graphs.get(&key);
            return graph.map_or(Ok(()), |graph| graph.launch());
        }
        let unknown = self.make_products(state, size, spec)?;
        self.enqueue_surely(state, size, spec, fill)?;
        let first = state.seen.get(&key).is_none();
        state.seen.insert(key, ());
        if first && self.tune != Tune::AtFirst {
            return Ok(());
        }
        self.settle(state, key, &unknown, fill)
    }

    /// What makes a forward fast from now on, once it was run plainly; and the forward once more, since what was
    /// tried has left other values behind.
    fn settle(
        &self,
        state: &mut State,
        key: (usize, Spec),
        unknown: &[Unknown],
        fill: &dyn Fn(&mut State) -> Result<()>,
    ) -> Result<()> {
        let captures = self.capture && state.failures < MOST_FAILURES;
        if unknown.is_empty() && !captures {
            return Ok(());
        }
        let (size, spec) = key;
        self.tune(state, size, unknown)?;
        let graph = captures.then(|| self.try_capture(state, size, &spec));
        fill(state)?;
        match graph.flatten() {
            Some(graph) => {
                graph.launch()?;
                self.keep_graph(state, key, graph)
            }
            None => self.enqueue(state, size, &spec, Manner::default()),
        }
    }

    /// A forward to be replayed; `None` where that fails.
    fn try_capture(&self, state: &mut State, size: usize, spec: &Spec) -> Option<Graph> {
        let captured = self.capture_fastest(state, size, spec);
        captured
            .map_err(|error| {
                state.failures += 1;
                state.failure = Some(error.to_string());
            })
            .ok()
    }

    fn keep_graph(&self, state: &mut State, key: (usize, Spec), graph: Graph) -> Result<()> {
        if let Some(gone) = state.graphs.insert(key, graph) {
            self.stream.synchronize().tried("finish its work")?;
            drop(gone);
        }
        Ok(())
    }

    /// Buffers for so many windows. Larger ones take the place of all smaller ones.
    fn make_room(&self, state: &mut State, windows: usize) -> Result<()> {
        if state
            .memory
            .as_ref()
            .is_some_and(|memory| memory.arena.windows >= windows)
        {
            return Ok(());
        }
        self.finish(state)?;
        state.graphs.clear();
        state.memory = None;
        let (context, sizes) = (&self.shared.context, &self.weights.sizes);
        state.memory = Some(Buffers::new(context, &self.stream, sizes, windows)?);
        Ok(())
    }

    /// Until the card uses nothing of the state any more.
    fn finish(&self, state: &State) -> Result<()> {
        self.stream.synchronize().tried("finish its work")?;
        state.copied.synchronize().tried("finish a copy")
    }

    /// Prepares the products of a forward. Given are those of which it is to be measured what makes them best.
    fn make_products(
        &self,
        state: &mut State,
        windows: usize,
        spec: &Spec,
    ) -> Result<Vec<Unknown>> {
        let (mut met, mut unknown) = (HashSet::new(), Vec::new());
        for step in steps(spec) {
            let Step::Product(which, from, to) = step else {
                continue;
            };
            let shape = self.weights.sizes.product(from, to, windows);
            if !met.insert(shape) {
                continue;
            }
            self.make_product(state, shape)?;
            if state.unmeasured.contains(&shape) {
                unknown.push((which, from, to));
            }
        }
        Ok(unknown)
    }

    fn make_product(&self, state: &mut State, shape: ProductShape) -> Result<()> {
        if let Entry::Vacant(place) = state.products.entry(shape) {
            let (product, known) = self.shared.product(&shape)?;
            place.insert(product);
            if !known && self.tune != Tune::Never {
                state.unmeasured.insert(shape);
            }
        }
        Ok(())
    }

    /// Ids, ends and hidden keys, and the vectors that stand in for some rows.
    fn fill(
        &self,
        state: &mut State,
        (batch, windows): (&Batch<'_>, &Range<usize>),
        size: usize,
        spliced: &[Spliced<'_>],
    ) -> Result<()> {
        let rows = spliced.iter().map(|one| one.row);
        self.upload(state, size, |words| {
            write_input(words, batch, windows, size, rows);
        })?;
        let memory = memory(state)?;
        let bytes = self.weights.sizes.width * size_of::<f32>();
        for one in spliced {
            let to = memory.at(Place::X) + (one.row * bytes) as Address;
            match one.from {
                Origin::Card(from) => copy(&self.stream, from, to, bytes)?,
                Origin::Host(values) => send(&self.stream, values, to)?,
            }
        }
        Ok(())
    }

    /// What `write` puts into the host's words for so many windows.
    fn upload(&self, state: &mut State, size: usize, write: impl FnOnce(&mut [u32])) -> Result<()> {
        state.uploaded.synchronize().tried("finish an upload")?;
        let memory = state.memory.as_mut();
        let memory = memory.ok_or_else(|| device_error("no buffers"))?;
        let words = memory.host.as_mut_slice();
        let words = words.tried("write memory of the host")?;
        let words = &mut words[..input_words(size)];
        write(words);
        let to = memory.base + memory.arena.input as Address;
        // SAFETY: the buffer of inputs has room for them; the words stay until `uploaded`.
        let copied = unsafe { result::memcpy_htod_async(to, words, self.stream.cu_stream()) };
        copied.tried("upload ids")?;
        let recorded = state.uploaded.record(&self.stream);
        recorded.tried("record an event")
    }
}

pub(super) fn memory(state: &State) -> Result<&Buffers> {
    state
        .memory
        .as_ref()
        .ok_or_else(|| device_error("no buffers"))
}

/// A stream for one encoder. Where two want the card, the one that takes longer has it first: of SDXL's, the wider.
fn own_stream(context: &Arc<CudaContext>, width: usize) -> Result<Arc<CudaStream>> {
    context.bind_to_thread().tried("use the card")?;
    let (usual, first) = get_priority_range().tried("tell the priorities of streams")?;
    let priority = if width > USUAL_WIDTH { first } else { usual };
    let stream = context.new_stream_with_priority(priority);
    stream.tried("make a stream")
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Buffers, graphs and weights must not go while the card uses them. If the card has failed,
        // it uses nothing any more.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = state.copied.synchronize();
        let _ = self.stream.synchronize();
    }
}
