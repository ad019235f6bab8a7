//! The steps of a forward, put on the engine's stream.

use std::fmt;

use super::buffers::{Buffers, copy};
use super::engine::{Engine, State, memory};
use super::failure::device_error;
use super::functions::{Address, Finish};
use super::library::Operands;
use super::product::Product;
use super::start::On;
use crate::error::Result;
use crate::kernels::Follow;
use crate::kernels::plan::{Matrix, NormAt, Place, ProductShape, Sizes, Spec, Step, Tiles, steps};

/// How the kernels of a forward follow each other. The results are the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Each may start while the one before drains.
    pub(super) overlap: bool,
    /// In front of a product, its matrix is asked for.
    pub(super) ahead: bool,
}

impl Manner {
    pub(super) const AHEAD: Manner = Manner::new(false, true);
    pub(super) const OVERLAPPING: Manner = Manner::new(true, false);
    pub(super) const BOTH: Manner = Manner::new(true, true);

    const fn new(overlap: bool, ahead: bool) -> Manner {
        Manner { overlap, ahead }
    }

    /// `None` where it is to be measured.
    pub(super) const fn wanted(follow: Follow) -> Option<Manner> {
        match follow {
            Follow::Measured => None,
            Follow::Plain => Some(Manner::new(false, false)),
            Follow::Ahead => Some(Manner::AHEAD),
            Follow::Overlapping => Some(Manner::OVERLAPPING),
            Follow::Both => Some(Manner::BOTH),
        }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.overlap, self.ahead) {
            (false, false) => "plain",
            (false, true) => "asking ahead",
            (true, false) => "overlapping",
            (true, true) => "overlapping and asking ahead",
        })
    }
}

/// What a step works on.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) state: &'a State,
    pub(super) memory: &'a Buffers,
    pub(super) windows: usize,
    pub(super) hidden_keys: bool,
}

impl<'a> At<'a> {
    /// The engine's buffers, no keys hidden.
    pub(super) fn new(state: &'a State, windows: usize) -> Result<At<'a>> {
        Ok(At {
            state,
            memory: memory(state)?,
            windows,
            hidden_keys: false,
        })
    }
}

impl Engine {
    /// All steps on the engine's stream.
    pub(super) fn enqueue(
        &self,
        state: &State,
        windows: usize,
        spec: &Spec,
        manner: Manner,
    ) -> Result<()> {
        let at = At {
            hidden_keys: spec.hidden_keys,
            ..At::new(state, windows)?
        };
        // Steps for which no kernel is started would ask for nothing.
        let all = steps(spec)
            .into_iter()
            .filter(|step| !self.is_done(at, *step));
        let all: Vec<Step> = all.collect();
        // In front of the first lies a copy.
        let mut behind_kernel = false;
        for (index, step) in all.iter().enumerate() {
            let on = On {
                overlap: manner.overlap && behind_kernel,
                ahead: self.ahead(manner, all.get(index + 1)),
                ..On::plainly(&self.stream)
            };
            self.step(at, on, *step)?;
            behind_kernel = !self.ends_in_copy(at, *step);
        }
        Ok(())
    }

    /// True if our own product in front of a non-linearity has done it.
    fn is_done(&self, at: At<'_>, step: Step) -> bool {
        matches!(step, Step::Activate(_)) && self.tiles(at, Place::Normed, Place::Inner).is_some()
    }

    /// True if what a step starts last is no kernel, which nothing may overlap.
    fn ends_in_copy(&self, at: At<'_>, step: Step) -> bool {
        match step {
            Step::Residual { bias, norm, keep } => {
                keep && norm.is_none() && self.adds(at, added_from(bias))
            }
            _ => false,
        }
    }

    /// The matrix of the next step, if it is a product.
    pub(super) fn ahead(&self, manner: Manner, next: Option<&Step>) -> (Address, u64) {
        let (true, Some(Step::Product(which, _, _))) = (manner.ahead, next) else {
            return (0, 0);
        };
        let [rows, columns] = self.weights.sizes.matrix(*which);
        let bytes = rows * columns * self.weights.sizes.kind.bytes();
        (self.weights.product(*which)[0], bytes as u64)
    }

    pub(super) fn step(&self, at: At<'_>, on: On<'_>, step: Step) -> Result<()> {
        let (functions, weights) = (&self.shared.functions, &self.weights);
        let size = [Sizes::rows(Place::X, at.windows), weights.sizes.width];
        let place = |place| at.memory.at(place);
        let [ids, ends, _] = at.memory.inputs(at.windows);
        let last = weights.norm(NormAt::Final);
        match step {
            Step::Embed(norm) => {
                let from = [ids, weights.table, weights.positions];
                let to = [place(Place::X), place(Place::Normed)];
                functions.embed_norm(on, size, from, weights.norm(norm), to)
            }
            Step::Product(which, from, to) => self.product(at, on, which, (from, to)),
            Step::Attention(layer) => self.attention(at, on, layer),
            Step::Activate(layer) => self.activate(at, on, layer),
            Step::Residual { bias, norm, keep } => self.residual(at, on, bias, (norm, keep)),
            Step::FinalNorm => {
                let to = [place(Place::Hidden), 0];
                functions.norm_rows(on, size, [place(Place::X), 0], last, to)
            }
            Step::Pool => {
                let to = [place(Place::Pooled), place(Place::PooledNarrow)];
                let size = [at.windows, weights.sizes.width];
                functions.norm_rows(on, size, [place(Place::X), ends], last, to)
            }
        }
    }

    fn product(
        &self,
        at: At<'_>,
        on: On<'_>,
        which: Matrix,
        (from, to): (Place, Place),
    ) -> Result<()> {
        let shape = self.weights.sizes.product(from, to, at.windows);
        let product = at.state.products.get(&shape);
        let product = product.ok_or_else(|| device_error("a product was not prepared"))?;
        let operands = at.memory.operands(self.weights.product(which)[0], from, to);
        let library = &self.shared.library;
        match product.tiles() {
            None if product.adds() => {
                let onto = Operands {
                    out: at.memory.at(Place::X),
                    ..operands
                };
                product.run(library, on.stream, onto, self.weights.product(which)[1])
            }
            None => product.run(library, on.stream, operands, 0),
            Some(tiles) => self.own_product(on, which, (&shape, tiles), operands),
        }
    }

    /// Sums in f32 go to planes in the scratch memory, which the next kernel adds up; nothing adds up
    /// those of the projection.
    fn own_product(
        &self,
        on: On<'_>,
        which: Matrix,
        (shape, tiles): (&ProductShape, Tiles),
        operands: Operands,
    ) -> Result<()> {
        let (tiles, out) = match which {
            Matrix::Out(_) | Matrix::Down(_) => (tiles, operands.workspace),
            _ => (Tiles { parts: 1, ..tiles }, operands.out),
        };
        let finish = match which {
            Matrix::Up(_) => Finish {
                bias: self.weights.product(which)[1],
                activation: Some(self.activation),
            },
            _ => Finish::default(),
        };
        let operands = Operands { out, ..operands };
        let own = self.shared.functions.own_products()?;
        own.start(on, tiles, shape, operands, finish)
    }

    /// How our own kernels make a product, if they do.
    fn tiles(&self, at: At<'_>, from: Place, to: Place) -> Option<Tiles> {
        let shape = self.weights.sizes.product(from, to, at.windows);
        at.state.products.get(&shape)?.tiles()
    }

    /// True if the product of this is in the residual stream already.
    fn adds(&self, at: At<'_>, from: Place) -> bool {
        let shape = self.weights.sizes.product(from, Place::Product, at.windows);
        let product = at.state.products.get(&shape);
        product.is_some_and(Product::adds)
    }

    /// What is left to do there: a copy, and the norm.
    fn normed(&self, at: At<'_>, on: On<'_>, norm: Option<NormAt>, keep: bool) -> Result<()> {
        let place = |place| at.memory.at(place);
        let size = [Sizes::rows(Place::X, at.windows), self.weights.sizes.width];
        if keep {
            let bytes = size[0] * size[1] * size_of::<f32>();
            copy(on.stream, place(Place::X), place(Place::Hidden), bytes)?;
        }
        let on = On {
            overlap: on.overlap && !keep,
            ..on
        };
        let Some(norm) = norm else {
            return Ok(());
        };
        let (from, by) = ([place(Place::X), 0], self.weights.norm(norm));
        let functions = &self.shared.functions;
        functions.norm_rows(on, size, from, by, [0, place(Place::Normed)])
    }

    fn attention(&self, at: At<'_>, on: On<'_>, layer: usize) -> Result<()> {
        let [_, bias] = self.weights.product(Matrix::QueryKeyValue(layer));
        let [_, _, keys] = at.memory.inputs(at.windows);
        let keys = if at.hidden_keys { keys } else { 0 };
        let (from, to) = (at.memory.at(Place::Stacked), at.memory.at(Place::Mixed));
        let functions = &self.shared.functions;
        functions.attention(on, [at.windows, self.heads], [from, bias, keys, to])
    }

    /// Nothing where our own product has done it.
    fn activate(&self, at: At<'_>, on: On<'_>, layer: usize) -> Result<()> {
        if self.is_done(at, Step::Activate(layer)) {
            return Ok(());
        }
        let [_, bias] = self.weights.product(Matrix::Up(layer));
        let inner = at.memory.at(Place::Inner);
        let rows = Sizes::rows(Place::Inner, at.windows);
        let size = [rows, self.weights.sizes.mlp_width];
        let functions = &self.shared.functions;
        functions.bias_activate(on, size, [inner, bias, inner], self.activation)
    }

    fn residual(
        &self,
        at: At<'_>,
        on: On<'_>,
        which: Matrix,
        (norm, keep): (Option<NormAt>, bool),
    ) -> Result<()> {
        let place = |place| at.memory.at(place);
        let from = added_from(which);
        if self.adds(at, from) {
            return self.normed(at, on, norm, keep);
        }
        let product = match self.tiles(at, from, Place::Product) {
            Some(tiles) => (at.memory.workspace(), tiles.parts),
            None => (place(Place::Product), 1),
        };
        let kept = if keep { place(Place::Hidden) } else { 0 };
        let normed = norm.map_or(0, |_| place(Place::Normed));
        let by = self.weights.norm(norm.unwrap_or(NormAt::Final));
        let size = [Sizes::rows(Place::X, at.windows), self.weights.sizes.width];
        let (bias, to) = (
            self.weights.product(which)[1],
            [place(Place::X), kept, normed],
        );
        let functions = &self.shared.functions;
        functions.residual_norm(on, size, (product, bias), by, to)
    }
}

/// What a product takes whose result is added to the residual stream.
fn added_from(which: Matrix) -> Place {
    match which {
        Matrix::Out(_) => Place::Mixed,
        _ => Place::Inner,
    }
}
