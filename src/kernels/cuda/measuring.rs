//! How long something takes on the card, as a captured graph, which is how it is used.

use candle_core::cuda_backend::cudarc::driver::sys;

use super::engine::{Engine, State};
use super::failure::Tried;
use super::graph::Graph;
use super::running::{At, Manner};
use super::start::On;
use crate::error::Result;
use crate::kernels::plan::{MOST_ROWS, Matrix, Place, Sizes, Step};

/// Times that each way is run; the shortest counts.
const ROUNDS: usize = 5;

/// Bytes that are read between two rounds: several times what any card's cache holds.
const FORGOTTEN: u64 = 256 << 20;

/// Rows of the MLP's middle that are worked on while a matrix is asked for: enough for some thousand threads.
const ASKING_ROWS: usize = 8;

/// Layers that are enough where activations fill the cache.
const LAYERS_OF_MANY_ROWS: usize = 8;

impl Engine {
    /// Layers whose matrices a product is measured on: other ones each time, as in a forward.
    pub(super) fn measured_layers(&self, windows: usize) -> usize {
        let all = self.weights.n_layers();
        if few(windows) {
            all
        } else {
            all.min(LAYERS_OF_MANY_ROWS)
        }
    }

    /// Milliseconds of what is enqueued on the matrices of this kind, which come from the card's memory as in a
    /// forward, and not from its cache.
    pub(super) fn timed(
        &self,
        state: &State,
        (windows, which): (usize, Matrix),
        enqueue: impl Fn() -> Result<()>,
    ) -> Result<f32> {
        let forget = || {
            if few(windows) {
                self.forget(state, windows, which)?;
            }
            Ok(())
        };
        if !self.capture {
            return self.shortest(forget, enqueue);
        }
        // Once outside of a capture, where a library may load what it runs for the first time.
        enqueue()?;
        // One that cannot be captured is none of the ways: times of its own would be those of the host.
        let graph = self.captured_once(&enqueue)?;
        self.shortest(forget, || graph.launch())
    }

    /// What is enqueued, to be replayed.
    pub(super) fn captured_once(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let _turn = self.shared.library.turn();
        Graph::capture(&self.stream, enqueue)
    }

    /// Milliseconds of a captured forward, which reads more than a cache holds.
    pub(super) fn timed_forward(&self, graph: &Graph) -> Result<f32> {
        self.shortest(|| Ok(()), || graph.launch())
    }

    /// Milliseconds of the shortest run, after one to warm up.
    fn shortest(
        &self,
        before: impl Fn() -> Result<()>,
        run: impl Fn() -> Result<()>,
    ) -> Result<f32> {
        let event = || {
            let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
            self.shared.context.new_event(flags).tried("make an event")
        };
        let (start, end) = (event()?, event()?);
        run()?;
        let mut least = f32::INFINITY;
        for _ in 0..ROUNDS {
            before()?;
            start.record(&self.stream).tried("record an event")?;
            run()?;
            end.record(&self.stream).tried("record an event")?;
            // Waits for the end.
            least = least.min(start.elapsed_ms(&end).tried("measure a product")?);
        }
        Ok(least)
    }

    /// Reads matrices of the other kinds until these are out of the card's cache.
    fn forget(&self, state: &State, windows: usize, which: Matrix) -> Result<()> {
        let mut bytes = 0;
        for layer in 0..self.weights.n_layers() {
            let kinds = [Matrix::QueryKeyValue, Matrix::Out, Matrix::Up, Matrix::Down];
            for other in kinds.map(|kind| kind(layer)) {
                if other == which.of_layer(layer) || bytes > FORGOTTEN {
                    continue;
                }
                bytes += self.ask(At::new(state, windows)?, other)?;
            }
        }
        Ok(())
    }

    /// Asks for a matrix, of so many bytes, by a kernel that does as good as nothing else.
    fn ask(&self, at: At<'_>, which: Matrix) -> Result<u64> {
        let next = Step::Product(which, Place::Normed, Place::Product);
        let ahead = self.ahead(Manner::AHEAD, Some(&next));
        let on = On {
            ahead,
            ..On::plainly(&self.stream)
        };
        let size = [ASKING_ROWS, self.weights.sizes.mlp_width];
        let places = [at.memory.at(Place::Inner), 0, at.memory.workspace()];
        let functions = &self.shared.functions;
        functions.bias_activate(on, size, places, self.activation)?;
        Ok(ahead.1)
    }
}

/// True for so few windows that a card waits for matrices.
fn few(windows: usize) -> bool {
    Sizes::rows(Place::X, windows) <= MOST_ROWS
}
