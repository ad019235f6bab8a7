//! A forward as a list of kernels and products on named buffers. A card runs it, or captures it; a test
//! runs it with plain operations.

/// What a forward is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// The hidden state after this many layers, at least 1.
    pub(crate) layer: usize,
    /// Whether the tower's last norm is applied to it.
    pub(crate) final_norm: bool,
    /// The pooled vector, if one is wanted.
    pub(crate) pooled: Option<PooledFrom>,
    /// Whether some keys are hidden.
    pub(crate) hidden_keys: bool,
}

/// The end token's row of the state after a layer, through the last norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PooledFrom {
    pub(crate) layer: usize,
    /// Times the projection as well.
    pub(crate) projected: bool,
}

impl Spec {
    /// How many layers are run.
    pub(crate) fn deepest(&self) -> usize {
        self.pooled.map_or(0, |pooled| pooled.layer).max(self.layer)
    }
}

/// A matrix of the encoder; the number is its layer's, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Matrix {
    QueryKeyValue(usize),
    Out(usize),
    Up(usize),
    Down(usize),
    Projection,
}

impl Matrix {
    /// The same of another layer.
    pub(crate) const fn of_layer(self, layer: usize) -> Matrix {
        match self {
            Matrix::QueryKeyValue(_) => Matrix::QueryKeyValue(layer),
            Matrix::Out(_) => Matrix::Out(layer),
            Matrix::Up(_) => Matrix::Up(layer),
            Matrix::Down(_) => Matrix::Down(layer),
            Matrix::Projection => Matrix::Projection,
        }
    }

    /// What it makes.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Matrix::QueryKeyValue(_) => "query, key, value",
            Matrix::Out(_) => "attention's output",
            Matrix::Up(_) => "MLP, up",
            Matrix::Down(_) => "MLP, down",
            Matrix::Projection => "projection",
        }
    }

    /// The step that takes its product, where it depends on what has made the product: our own kernels
    /// leave the second part to it, or do all of it themselves.
    pub(crate) const fn follower(self) -> Option<Step> {
        let norm = match self {
            Matrix::Up(layer) => return Some(Step::Activate(layer)),
            Matrix::Out(layer) => NormAt::Second(layer),
            Matrix::Down(layer) => NormAt::First(layer),
            Matrix::QueryKeyValue(_) | Matrix::Projection => return None,
        };
        Some(Step::Residual {
            bias: self,
            norm: Some(norm),
            keep: false,
        })
    }
}

/// A layer norm of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NormAt {
    First(usize),
    Second(usize),
    Final,
}

/// A buffer. Rows are those of all windows, but for the pooled ones: one for each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The residual stream, f32.
    X,
    /// What goes into the next product, in the matrices' type.
    Normed,
    /// Query, key and value without their bias, in the matrices' type.
    Stacked,
    /// What attention gives, in the matrices' type.
    Mixed,
    /// The MLP's middle, in the matrices' type.
    Inner,
    /// What is added to the residual stream, f32.
    Product,
    /// The hidden state that is given, f32.
    Hidden,
    /// The pooled rows after the last norm, f32.
    Pooled,
    /// The same in the matrices' type.
    PooledNarrow,
    /// The same times the projection, f32.
    Projected,
}

impl Place {
    pub(crate) const ALL: [Place; 10] = [
        Place::X,
        Place::Normed,
        Place::Stacked,
        Place::Mixed,
        Place::Inner,
        Place::Product,
        Place::Hidden,
        Place::Pooled,
        Place::PooledNarrow,
        Place::Projected,
    ];

    /// Whether it holds f32 whatever the type of the matrices.
    pub(crate) const fn is_f32(self) -> bool {
        use Place::{Hidden, Pooled, Product, Projected, X};
        matches!(self, X | Product | Hidden | Pooled | Projected)
    }

    /// Whether it has one row for each window, not 77.
    pub(crate) const fn is_pooled(self) -> bool {
        matches!(self, Place::Pooled | Place::PooledNarrow | Place::Projected)
    }
}

/// One kernel or one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// ids → `X`, and its norm → `Normed`.
    Embed(NormAt),
    /// `to = from · matrixᵀ`
    Product(Matrix, Place, Place),
    /// `Stacked` and its bias → `Mixed`.
    Attention(usize),
    /// `Inner` and its bias → `Inner`.
    Activate(usize),
    /// `X += Product + bias`; the norm goes to `Normed`, a copy to `Hidden` where it is kept.
    Residual {
        bias: Matrix,
        norm: Option<NormAt>,
        keep: bool,
    },
    /// The last norm of `X` → `Hidden`.
    FinalNorm,
    /// The last norm of the end tokens' rows of `X` → `Pooled` and `PooledNarrow`.
    Pool,
}

/// All steps, in order.
pub(crate) fn steps(spec: &Spec) -> Vec<Step> {
    let deepest = spec.deepest();
    let mut all = vec![Step::Embed(NormAt::First(0))];
    for layer in 0..deepest {
        attention(layer, &mut all);
        let state = layer + 1;
        let next = (state < deepest).then_some(NormAt::First(state));
        let keep = state == spec.layer && !spec.final_norm;
        mlp(layer, (next, keep), &mut all);
        if state == spec.layer && spec.final_norm {
            all.push(Step::FinalNorm);
        }
        if let Some(pooled) = spec.pooled.filter(|pooled| pooled.layer == state) {
            pool(pooled, &mut all);
        }
    }
    all
}

fn attention(layer: usize, all: &mut Vec<Step>) {
    let stacked = Matrix::QueryKeyValue(layer);
    all.push(Step::Product(stacked, Place::Normed, Place::Stacked));
    all.push(Step::Attention(layer));
    all.push(Step::Product(
        Matrix::Out(layer),
        Place::Mixed,
        Place::Product,
    ));
    all.push(Step::Residual {
        bias: Matrix::Out(layer),
        norm: Some(NormAt::Second(layer)),
        keep: false,
    });
}

fn mlp(layer: usize, (norm, keep): (Option<NormAt>, bool), all: &mut Vec<Step>) {
    let (up, down) = (Matrix::Up(layer), Matrix::Down(layer));
    all.push(Step::Product(up, Place::Normed, Place::Inner));
    all.push(Step::Activate(layer));
    all.push(Step::Product(down, Place::Inner, Place::Product));
    all.push(Step::Residual {
        bias: down,
        norm,
        keep,
    });
}

fn pool(pooled: PooledFrom, all: &mut Vec<Step>) {
    all.push(Step::Pool);
    if pooled.projected {
        let (from, to) = (Place::PooledNarrow, Place::Projected);
        all.push(Step::Product(Matrix::Projection, from, to));
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
