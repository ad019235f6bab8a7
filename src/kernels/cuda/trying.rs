//! What makes each product best on this card, and how kernels follow each other best: tried on the
//! encoder's own matrices.

use std::fmt::Write as _;

use super::engine::{Engine, State};
use super::graph::Graph;
use super::product::{Product, Way};
use super::running::{At, Manner};
use super::start::On;
use crate::error::Result;
use crate::kernels::plan::{
    MOST_ROWS, Matrix, Place, ProductShape, Sizes, Spec, Step, Tiles, steps,
};

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
        let mut trials = Trials::default();
        let mut right = None;
        for way in ways {
            set(state, &shape, way);
            // An error is one that the heuristic proposes and the library refuses.
            let time = self.time(state, windows, product).ok();
            let wins = time.is_some_and(|time| trials.would_win(time));
            let agrees = !wins || self.agrees(state, (windows, product), &mut right)?;
            trials.note(way, time, agrees);
        }
        state.measured.push(trials.told(which, &shape));
        match trials.best() {
            Some(way) => self.shared.keep_choice(&shape, way),
            None => state.measured.push("none of them can be used".to_owned()),
        }
        set(state, &shape, trials.best().unwrap_or(before));
        Ok(())
    }

    /// Milliseconds of a product and of what follows it, over some layers.
    fn time(&self, state: &State, windows: usize, product: Unknown) -> Result<f32> {
        let overlap = self.shared.functions.overlap;
        let layers = 0..self.measured_layers(windows);
        self.timed(state, (windows, product.0), || {
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

    /// All steps plainly; where what is to make a product fails, with what is next likely to.
    pub(super) fn enqueue_surely(
        &self,
        state: &mut State,
        windows: usize,
        spec: &Spec,
        fill: &dyn Fn(&mut State) -> Result<()>,
    ) -> Result<()> {
        fill(state)?;
        if self
            .enqueue(state, windows, spec, Manner::default())
            .is_ok()
        {
            return Ok(());
        }
        // Once more from the start, for steps have been left out.
        fill(state)?;
        steps(spec)
            .into_iter()
            .try_for_each(|step| self.step_surely(state, (windows, spec), step))
    }

    /// A step, and again with what is next likely to make it, until nothing is left that might.
    fn step_surely(
        &self,
        state: &mut State,
        (windows, spec): (usize, &Spec),
        step: Step,
    ) -> Result<()> {
        loop {
            let at = At {
                hidden_keys: spec.hidden_keys,
                ..At::new(state, windows)?
            };
            let done = self.step(at, On::plainly(&self.stream), step);
            let (Err(_), Step::Product(_, from, to)) = (&done, step) else {
                return done;
            };
            let shape = self.weights.sizes.product(from, to, windows);
            let product = state.products.get_mut(&shape);
            if !product.is_some_and(Product::give_up) {
                return done;
            }
        }
    }

    /// A forward in the manner that is wanted; where that is the fastest one, it is tried out once for so many
    /// windows.
    pub(super) fn capture_fastest(
        &self,
        state: &mut State,
        windows: usize,
        spec: &Spec,
    ) -> Result<Graph> {
        let known = state.manners.get(&windows).copied().or(self.follow);
        if let Some(manner) = known {
            match self.captured_in(state, windows, spec, manner) {
                Ok(graph) => return Ok(graph),
                Err(error) => state.failure = Some(error.to_string()),
            }
        }
        let plain = self.captured_in(state, windows, spec, Manner::default())?;
        if known.is_some() {
            return Ok(plain);
        }
        let (manner, graph) = self.fastest(state, windows, spec, plain)?;
        state.manners.insert(windows, manner);
        Ok(graph)
    }

    /// All manners are captured and run; the plain one is captured already.
    fn fastest(
        &self,
        state: &mut State,
        windows: usize,
        spec: &Spec,
        plain: Graph,
    ) -> Result<(Manner, Graph)> {
        let time = self.timed_forward(&plain)?;
        let mut told = format!("{windows} windows: plain {time:.3} ms");
        let mut best = (time, Manner::default(), plain);
        for manner in self.manners(windows) {
            // A card that does not capture it this way goes without.
            let graph = match self.captured_in(state, windows, spec, manner) {
                Ok(graph) => graph,
                Err(error) => {
                    let _ = write!(told, ", {manner} fails ({error})");
                    continue;
                }
            };
            let time = self.timed_forward(&graph)?;
            let _ = write!(told, ", {manner} {time:.3} ms");
            if time < best.0 {
                best = (time, manner, graph);
            }
        }
        state.measured.push(told);
        Ok((best.1, best.2))
    }

    fn captured_in(
        &self,
        state: &State,
        windows: usize,
        spec: &Spec,
        manner: Manner,
    ) -> Result<Graph> {
        self.captured_once(|| self.enqueue(state, windows, spec, manner))
    }

    /// All manners but the plain one. What many rows need takes longer to use than to read: nothing is gained there
    /// from asking for it ahead.
    fn manners(&self, windows: usize) -> Vec<Manner> {
        let overlap = self.shared.functions.overlap;
        let few = Sizes::rows(Place::X, windows) <= MOST_ROWS;
        let each = [Manner::AHEAD, Manner::BOTH, Manner::OVERLAPPING].into_iter();
        let each = each.filter(|manner| overlap || !manner.overlap);
        each.filter(|manner| few || !manner.ahead).collect()
    }
}

/// What was found of the ways to make a product.
#[derive(Default)]
struct Trials {
    /// Of each kind of way: the best, and how many were measured.
    best: [Option<(f32, Way)>; 3],
    measured: [usize; 3],
    refused: usize,
    wrong: usize,
}

/// The kinds of ways, in the order in which [`Trials`] has them.
const KINDS: [&str; 3] = ["library's", "library's, added,", "own"];

impl Trials {
    /// True if so few milliseconds are the least of all so far.
    fn would_win(&self, time: f32) -> bool {
        let mut best = self.best.iter().flatten();
        best.all(|(least, _)| time < *least)
    }

    fn note(&mut self, way: Way, time: Option<f32>, agrees: bool) {
        let (Some(time), true) = (time, agrees) else {
            self.refused += usize::from(time.is_none());
            self.wrong += usize::from(!agrees);
            return;
        };
        let kind = match way {
            Way::Library(_) => 0,
            Way::Adding(_) => 1,
            Way::Own(_) => 2,
        };
        self.measured[kind] += 1;
        if self.best[kind].is_none_or(|(least, _)| time < least) {
            self.best[kind] = Some((time, way));
        }
    }

    fn best(&self) -> Option<Way> {
        let best = self.best.iter().flatten();
        best.min_by(|a, b| a.0.total_cmp(&b.0)).map(|best| best.1)
    }

    /// In a line.
    fn told(&self, which: Matrix, shape: &ProductShape) -> String {
        let [rows, inputs, outputs] = [shape.rows, shape.inputs, shape.outputs];
        let mut line = format!("{} [{rows}, {inputs}] to {outputs}:", which.name());
        let kinds = KINDS.iter().zip(&self.best).zip(self.measured);
        for ((kind, best), measured) in kinds {
            let Some((time, way)) = best else { continue };
            let _ = write!(line, " {kind} {time:.3} ms, best of {measured}");
            if let Way::Own(Tiles { columns, parts }) = way {
                let _ = write!(line, " ({columns} columns, depth in {parts})");
            }
            line.push(';');
        }
        let (refused, wrong) = (self.refused, self.wrong);
        let _ = write!(line, " {refused} refused, {wrong} wrong");
        line
    }
}

pub(super) fn set(state: &mut State, shape: &ProductShape, way: Way) {
    if let Some(product) = state.products.get_mut(shape) {
        product.make_by(way);
    }
}
