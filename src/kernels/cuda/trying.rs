//! What makes each product best on this card, and how kernels follow each other best: tried on the
//! encoder's own matrices, measured as captured graphs, which is how it is used.

use candle_core::cuda_backend::cudarc::driver::sys;

use super::engine::{Engine, State};
use super::failure::Tried;
use super::graph::Graph;
use super::product::Way;
use super::running::{At, Manner};
use super::start::On;
use crate::error::Result;
use crate::kernels::plan::{MOST_ROWS, Matrix, Place, ProductShape, Sizes, Spec, Step};

/// Layers whose matrices a product is measured on: other ones each time, as in a forward, so that they
/// come from the card's memory and not from its cache.
const MEASURED_LAYERS: usize = 8;

/// Times that each way is run.
const MEASURED_ROUNDS: usize = 3;

/// A product of the steps.
pub(super) type Unknown = (Matrix, Place, Place);

impl Engine {
    /// Chooses what makes each of these products, on what the last forward left in the buffers.
    pub(super) fn tune(
        &self,
        state: &mut State,
        windows: usize,
        unknown: &[Unknown],
    ) -> Result<()> {
        if unknown.is_empty() {
            return Ok(());
        }
        for product in unknown {
            self.tune_one(state, windows, *product)?;
        }
        self.shared.save_choices();
        Ok(())
    }

    fn tune_one(&self, state: &mut State, windows: usize, product: Unknown) -> Result<()> {
        let (which, from, to) = product;
        let shape = self.weights.sizes.product(from, to, windows);
        state.unmeasured.remove(&shape);
        let Some(made) = state.products.get(&shape) else {
            return Ok(());
        };
        let before = made.way();
        let mut ways = self.shared.ways(&shape, made)?;
        // One row a window: nothing to gain.
        ways.retain(|way| which != Matrix::Projection || matches!(way, Way::Library(_)));
        let (mut best, mut right) = (None, None);
        for way in ways {
            set(state, &shape, way);
            let Ok(time) = self.time(state, windows, product) else {
                continue; // one that the heuristic proposes and the library refuses
            };
            let faster = best.is_none_or(|(least, _)| time < least);
            if faster && self.agrees(state, (windows, product), &mut right)? {
                best = Some((time, way));
            }
        }
        if let Some(way) = best.map(|(_, way)| way).or(before) {
            set(state, &shape, way);
            self.shared.keep_choice(&shape, way);
        }
        Ok(())
    }

    /// Milliseconds of a product and of what follows it, over some layers.
    fn time(&self, state: &State, windows: usize, product: Unknown) -> Result<f32> {
        let overlap = self.shared.functions.overlap;
        let layers = 0..self.weights.n_layers().min(MEASURED_LAYERS);
        self.timed(|| {
            layers
                .clone()
                .try_for_each(|layer| self.try_product(state, windows, (product, layer), overlap))
        })
    }

    /// A product of one layer, and the kernel that takes its result where the two depend on each other.
    fn try_product(
        &self,
        state: &State,
        windows: usize,
        ((which, from, to), layer): (Unknown, usize),
        overlap: bool,
    ) -> Result<()> {
        let at = At::new(state, windows)?;
        let which = which.of_layer(layer);
        let on = |overlap| On {
            overlap,
            ..On::plainly(&self.stream)
        };
        // In front of the first may lie anything.
        let first = on(overlap && layer > 0);
        self.step(at, first, Step::Product(which, from, to))?;
        match which.follower() {
            Some(step) => self.step(at, on(overlap), step),
            None => Ok(()),
        }
    }

    /// Milliseconds on the card, after one round to warm up.
    fn timed(&self, enqueue: impl Fn() -> Result<()>) -> Result<f32> {
        let graph = self
            .capture
            .then(|| Graph::capture(&self.stream, &enqueue).ok());
        match graph.flatten() {
            Some(graph) => self.timed_rounds(|| graph.launch()),
            None => self.timed_rounds(enqueue),
        }
    }

    fn timed_rounds(&self, run: impl Fn() -> Result<()>) -> Result<f32> {
        let event = || {
            let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
            self.shared.context.new_event(flags).tried("make an event")
        };
        let (start, end) = (event()?, event()?);
        run()?;
        start.record(&self.stream).tried("record an event")?;
        for _ in 0..MEASURED_ROUNDS {
            run()?;
        }
        end.record(&self.stream).tried("record an event")?;
        start.elapsed_ms(&end).tried("measure a product")
    }

    /// A forward in the manner that is fastest for so many windows, which is tried out once.
    pub(super) fn capture_fastest(
        &self,
        state: &mut State,
        windows: usize,
        spec: &Spec,
    ) -> Result<Graph> {
        let known = state.manners.get(&windows).copied();
        if let Some(manner) = known
            && let Ok(graph) = self.captured_in(state, windows, spec, manner)
        {
            return Ok(graph);
        }
        let plain = self.captured_in(state, windows, spec, Manner::default())?;
        if known.is_some() || Sizes::rows(Place::X, windows) > MOST_ROWS {
            return Ok(plain);
        }
        let (manner, graph) = self.fastest(state, windows, spec, plain)?;
        state.manners.insert(windows, manner);
        Ok(graph)
    }

    /// All manners are captured and run; the plain one is captured already.
    fn fastest(
        &self,
        state: &State,
        windows: usize,
        spec: &Spec,
        plain: Graph,
    ) -> Result<(Manner, Graph)> {
        let time = self.timed_rounds(|| plain.launch())?;
        let mut best = (time, Manner::default(), plain);
        for manner in self.manners() {
            // A card that does not capture it this way goes without.
            let Ok(graph) = self.captured_in(state, windows, spec, manner) else {
                continue;
            };
            let time = self.timed_rounds(|| graph.launch())?;
            if time < best.0 {
                best = (time, manner, graph);
            }
        }
        Ok((best.1, best.2))
    }

    fn captured_in(
        &self,
        state: &State,
        windows: usize,
        spec: &Spec,
        manner: Manner,
    ) -> Result<Graph> {
        Graph::capture(&self.stream, || self.enqueue(state, windows, spec, manner))
    }

    /// All manners but the plain one.
    fn manners(&self) -> Vec<Manner> {
        let overlap = self.shared.functions.overlap;
        let each = [(false, true), (true, true), (true, false)].into_iter();
        each.filter(|manner| overlap || !manner.0)
            .map(|(overlap, ahead)| Manner { overlap, ahead })
            .collect()
    }
}

pub(super) fn set(state: &mut State, shape: &ProductShape, way: Way) {
    if let Some(product) = state.products.get_mut(shape) {
        product.make_by(way);
    }
}
