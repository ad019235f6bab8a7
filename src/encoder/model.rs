//! The transformer: embedding, layers, readout.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result, expect_type};
use crate::kernels::{Activation, Kernels, Prepared, Tower};
use crate::threads;
use crate::tokens::CONTEXT;
use crate::weights::TensorSource;

use super::layer::{Layer, Norm};
use super::weight::{Kept, Loader, Weight};
use super::window::{self, Window};
use super::{ClipConfig, Pooled, Readout};

/// Layers that are read together, so that they share large pages of memory: 57 MiB of ViT-L in 16 bits,
/// 157 MiB of ViT-bigG.
const LAYERS_AT_ONCE: usize = 4;

/// What matrices may be kept in: kernels widen these to f32, and know no others.
pub(crate) const MATRIX_TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// One loaded text encoder. A clone shares its tensors.
#[derive(Clone, Debug)]
pub struct ClipText {
    pub(super) config: ClipConfig,
    /// Of its embeddings and of what is no tensor but becomes one.
    pub(super) dtype: DType,
    pub(super) token_embedding: Weight,
    pub(super) position_embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Norm,
    pub(super) projection: Option<Tensor>,
    pub(super) kernels: Arc<dyn Kernels>,
    /// What the kernels keep for these very tensors.
    pub(super) prepared: Prepared,
}

/// What one forward gives, in f32.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// `[windows, 77, width]`
    pub hidden: Tensor,
    /// `[windows, width]`: full tower, final norm, at the end token; where some readout asked.
    pub normed: Option<Tensor>,
    /// `[windows, projected]`: the same times the projection; where some readout asked.
    pub projected: Option<Tensor>,
}

impl Encoded {
    /// The pooled vectors of the kind asked for, `[windows, _]`.
    pub fn pooled(&self, kind: Pooled) -> Option<&Tensor> {
        match kind {
            Pooled::Skip => None,
            Pooled::Normed => self.normed.as_ref(),
            Pooled::Projected => self.projected.as_ref(),
        }
    }
}

impl ClipText {
    /// Loads all layers of `source`. Matrices are kept as `kept` says, embeddings always expanded;
    /// vectors (biases, norms, positions) in f32, which costs nothing and loses nothing. Other types
    /// than f32, f16 and bf16 are refused.
    ///
    /// `progress` hears how many layers are there, and of how many, after each group of layers that are
    /// read together; of all of them when everything else is there, too.
    pub fn load(
        source: &dyn TensorSource,
        config: &ClipConfig,
        kept: Kept,
        kernels: Arc<dyn Kernels>,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ClipText> {
        expect_type("an encoder's matrices", kept.dtype, &MATRIX_TYPES)?;
        threads::expect()?;
        let transfers = kernels.transfers();
        let load = Loader {
            source,
            kept,
            device,
            kernels,
            transfers: transfers.as_deref(),
        };
        let layers = load_layers(&load, config.layers, progress)?;
        let clip = ClipText::around(layers, load, config)?;
        settle(device)?;
        progress(config.layers, config.layers);
        Ok(clip)
    }

    /// What is before the layers and behind them is loaded here.
    fn around(layers: Vec<Layer>, load: Loader<'_>, config: &ClipConfig) -> Result<ClipText> {
        Ok(ClipText {
            config: config.clone(),
            dtype: load.kept.dtype,
            token_embedding: Weight::table(&load, "token_embedding")?,
            position_embedding: load.vector("position_embedding")?,
            layers,
            final_norm: Norm::load(&load, "final_ln")?,
            projection: config
                .projection
                .map(|_| load.matrix("projection"))
                .transpose()?,
            kernels: load.kernels,
            prepared: Prepared::default(),
        })
    }

    /// Its dimensions.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The same tensors on other kernels of the same device.
    #[must_use]
    pub fn with_kernels(&self, kernels: Arc<dyn Kernels>) -> ClipText {
        ClipText {
            kernels,
            prepared: Prepared::default(),
            ..self.clone()
        }
    }

    /// The same tensors with this non-linearity. What kernels keep is kept for each of them by itself.
    #[must_use]
    pub fn with_activation(&self, activation: Activation) -> ClipText {
        let mut other = self.clone();
        if other.config.activation != activation {
            other.config.activation = activation;
            other.prepared = Prepared::default();
        }
        other
    }

    /// How many forwards its kernels have captured, to be replayed in one call (CUDA).
    pub fn captured(&self) -> usize {
        self.kernels.captured(&self.prepared)
    }

    /// Why a forward could not be captured, if CUDA refused to. Results are the same without.
    pub fn capture_failure(&self) -> Option<String> {
        self.kernels.capture_failure(&self.prepared)
    }

    /// What was measured to make its forwards fast, a line each, to be read by people: ways to make each product,
    /// manners in which kernels follow each other (CUDA).
    pub fn measured(&self) -> Vec<String> {
        self.kernels.measured(&self.prepared)
    }

    /// How many of its matrices stay where the system has their file; the query's, key's and value's are one.
    pub fn n_mapped(&self) -> usize {
        let matrices = self.layers.iter().flat_map(Layer::matrices);
        let all = matrices.chain([&self.token_embedding]);
        all.filter(|weight| weight.is_mapped()).count()
    }

    /// How its embeddings and, unless they are kept quantized, its matrices are kept.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        self.position_embedding.device()
    }

    /// The name of the kernels it runs on.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    /// Encodes all windows in one forward; `readouts` says what to read from each.
    /// Layers that no readout needs are not run.
    pub fn encode(&self, windows: &[Window<'_>], readouts: &[Readout]) -> Result<Encoded> {
        let wanted = self.wanted_states(windows, readouts)?;
        if let Some(encoded) = self.encode_whole(windows, readouts)? {
            return Ok(encoded);
        }
        let x = self.embed(windows)?;
        let hidden_keys = window::hidden_keys(windows, x.device())?;
        let states = self.states(x, hidden_keys.as_ref(), &wanted, readouts)?;
        let hidden = self.read_hidden(&states, readouts)?;
        let (normed, projected) = self.read_pooled(&states, windows, readouts)?;
        Ok(Encoded {
            hidden,
            normed,
            projected,
        })
    }

    /// The states that some readout names, with their layers; the embeddings are layer 0.
    fn states(
        &self,
        x: Tensor,
        hidden_keys: Option<&Tensor>,
        wanted: &Wanted,
        readouts: &[Readout],
    ) -> Result<Vec<(usize, Tensor)>> {
        let keep = (1..=wanted.deepest).filter(|layer| wanted.keeps(*layer, readouts));
        let keep: Vec<usize> = keep.collect();
        let embedded = (0, x.clone());
        let fast = self.tower(wanted.deepest);
        let fast = fast.map(|tower| self.kernels.run(&tower, &x, hidden_keys, &keep));
        let kept = match fast.transpose()?.flatten() {
            Some(kept) => kept,
            None => self.by_layers(x, hidden_keys, &keep)?,
        };
        let kept = keep.into_iter().zip(kept);
        Ok(std::iter::once(embedded).chain(kept).collect())
    }

    /// The first layers as the fast paths take them; `None` if they take no matrix that is kept as some is.
    pub(super) fn tower(&self, layers: usize) -> Option<Tower<'_>> {
        let blocks = self
            .layers
            .iter()
            .take(layers)
            .map(|layer| layer.block(&*self.kernels));
        Some(Tower {
            blocks: blocks.collect::<Option<_>>()?,
            heads: self.config.heads,
            activation: self.config.activation,
        })
    }

    /// Layer after layer; matrices that the fast paths do not take become tensors for their layer alone.
    fn by_layers(
        &self,
        mut x: Tensor,
        hidden_keys: Option<&Tensor>,
        keep: &[usize],
    ) -> Result<Vec<Tensor>> {
        let deepest = keep.last().copied().unwrap_or_default();
        let mut kept = Vec::with_capacity(keep.len());
        for (index, layer) in self.layers.iter().enumerate().take(deepest) {
            x = self.one_layer(&layer.expanded(&*self.kernels)?, &x, hidden_keys)?;
            if keep.contains(&(index + 1)) {
                kept.push(x.clone());
            }
        }
        Ok(kept)
    }

    /// One layer, whole where the kernels can, else operation after operation.
    fn one_layer(&self, layer: &Layer, x: &Tensor, hidden_keys: Option<&Tensor>) -> Result<Tensor> {
        let tower = layer.block(&*self.kernels).map(|block| Tower {
            blocks: vec![block],
            heads: self.config.heads,
            activation: self.config.activation,
        });
        let whole = tower.map(|tower| self.kernels.run(&tower, x, hidden_keys, &[1]));
        match whole.transpose()?.flatten().and_then(|mut all| all.pop()) {
            Some(state) => Ok(state),
            None => layer.forward(x, hidden_keys, &self.config, &*self.kernels),
        }
    }

    /// How far to run, after checking that everything asked for exists.
    fn wanted_states(&self, windows: &[Window<'_>], readouts: &[Readout]) -> Result<Wanted> {
        if windows.is_empty() || windows.len() != readouts.len() {
            let message = format!("{} windows, {} readouts", windows.len(), readouts.len());
            return Err(Error::new(ErrorKind::Request, message));
        }
        let depth = |readout: &Readout| match readout.pooled {
            Pooled::Skip => readout.layer,
            Pooled::Normed | Pooled::Projected => readout.layer.max(readout.pooled_layer),
        };
        let deepest = readouts.iter().map(depth).max().unwrap_or_default();
        if let Some(readout) = readouts
            .iter()
            .find(|readout| readout.layer.max(readout.pooled_layer) > self.config.layers)
        {
            let message = format!(
                "layer {} of an encoder with {}",
                readout.layer.max(readout.pooled_layer),
                self.config.layers
            );
            return Err(Error::new(ErrorKind::Request, message));
        }
        Ok(Wanted { deepest })
    }

    /// Token rows plus position rows: `[windows, 77, width]` in f32.
    fn embed(&self, windows: &[Window<'_>]) -> Result<Tensor> {
        let rows = self.token_embedding.rows(window::ids(windows))?;
        let rows =
            window::spliced(rows, windows)?.reshape((windows.len(), CONTEXT, self.config.width))?;
        Ok(rows.broadcast_add(&self.position_embedding)?)
    }
}

/// All layers, group after group. `progress` hears of all groups but the last.
fn load_layers(
    load: &Loader<'_>,
    count: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Layer>> {
    let mut layers = Vec::with_capacity(count);
    while layers.len() < count {
        let end = count.min(layers.len() + LAYERS_AT_ONCE);
        layers.extend(Layer::load(load, layers.len()..end)?);
        if end < count {
            progress(end, count);
        }
    }
    Ok(layers)
}

/// How far a forward must go.
struct Wanted {
    deepest: usize,
}

impl Wanted {
    fn keeps(&self, layer: usize, readouts: &[Readout]) -> bool {
        let reads = |readout: &Readout| match readout.pooled {
            Pooled::Skip => readout.layer == layer,
            Pooled::Normed | Pooled::Projected => {
                readout.layer == layer || readout.pooled_layer == layer
            }
        };
        layer <= self.deepest && readouts.iter().any(reads)
    }
}

/// Waits until the tensors that this thread has made on a device are there. Other threads may use an
/// encoder at once, and on CUDA each has a stream of its own that knows nothing of this one.
pub(super) fn settle(device: &Device) -> Result<()> {
    Ok(device.synchronize()?)
}
