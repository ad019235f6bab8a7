//! An encoder from ids to what is read out of it, as the paths see it that do all of it at once.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::tower::{NormOf, Tower};
use crate::error::Result;

/// All tensors of an encoder.
#[derive(Clone, Debug)]
pub struct WholeEncoder<'a> {
    /// All layers.
    pub tower: Tower<'a>,
    /// `[vocabulary, width]`, in the type of the matrices.
    pub token_embedding: &'a Tensor,
    /// `[77, width]`, f32.
    pub position_embedding: &'a Tensor,
    /// After the last layer.
    pub final_norm: NormOf<'a>,
    /// `[projected, width]`, in the type of the matrices.
    pub projection: Option<&'a Tensor>,
}

/// Windows that are all read in one way.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// 77 for each window.
    pub ids: Vec<u32>,
    /// Vectors `[width]` in place of a row's token embedding, by row of the whole batch.
    pub vectors: Vec<(usize, &'a Tensor)>,
    /// 77 for each window: minus infinity hides a key, 0 does not.
    pub hidden_keys: Option<Vec<f32>>,
    /// For each window the row that is pooled.
    pub ends: Vec<u32>,
    /// The hidden state after this many layers is read.
    pub layer: usize,
    /// Whether the final norm is applied to it.
    pub final_norm: bool,
    /// The pooled vector that is read beside it.
    pub pooled: Option<PooledRow>,
}

/// The final norm of the state after a layer, at the windows' ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PooledRow {
    /// Usually the last.
    pub layer: usize,
    /// Times the projection as well.
    pub projected: bool,
}

/// What is read, in f32.
#[derive(Clone, Debug)]
pub struct ReadOut {
    /// `[windows, 77, width]`
    pub hidden: Tensor,
    /// `[windows, width]`, where a pooled vector was wanted as it is; may be there beside its projection, too.
    pub normed: Option<Tensor>,
    /// `[windows, projected]`, where its projection was.
    pub projected: Option<Tensor>,
}

type Slot = Arc<dyn Any + Send + Sync>;

/// What kernels keep for one encoder: buffers, captured graphs. It lives as long as the encoder, and
/// its clones share it. Encoders with other tensors need one of their own.
#[derive(Clone, Default)]
pub struct Prepared(Arc<Mutex<Option<Slot>>>);

impl Prepared {
    /// What is kept; made if nothing is.
    pub fn get_or_make(
        &self,
        make: impl FnOnce() -> Result<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Arc<dyn Any + Send + Sync>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = &*slot {
            return Ok(slot.clone());
        }
        Ok(slot.insert(make()?).clone())
    }
}

impl Prepared {
    /// What is kept, if anything is.
    pub fn get(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.0.try_lock().is_ok_and(|slot| slot.is_some());
        f.debug_tuple("Prepared").field(&made).finish()
    }
}

/// How kernels are to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where choices that were measured on this machine, and kernels that were compiled for it, are kept
    /// from one run to the next. Nothing is written without it.
    pub cache_dir: Option<PathBuf>,
    /// The CPU's unit by its name (`amx`, `avx512bf16`, `avx512`, `avx2`, `neon`), in place of the best
    /// that is there.
    pub unit: Option<String>,
    /// CUDA: whether a forward is captured once for each number of windows and replayed then.
    pub capture: bool,
    /// CUDA: what makes the products of few windows.
    pub products: Products,
    /// CUDA: when that is measured.
    pub tune: Tune,
    /// CUDA: how the kernels of a captured forward follow each other.
    pub follow: Follow,
}

/// When what takes long, and pays only if it is repeated, is done for a number of windows: measuring what
/// makes each product fastest, compiling our own kernels for them, capturing the forward.
///
/// Which algorithm makes a product shows in a result's last bits. Choices that a folder
/// ([`Options::cache_dir`]) holds already are used from the first call on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// In the second call, so that the first result is there as soon as can be. It may differ from later
    /// ones in its last bits.
    #[default]
    AtSecond,
    /// In the first call: all calls of a process give the same bits.
    AtFirst,
    /// Not at all: the library's first proposal makes each product, so all processes give the same bits.
    /// Forwards are captured in the second call.
    Never,
}

/// What makes products of a few hundred rows on a card.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Whatever is fastest when it is measured: the library, or our own kernels.
    #[default]
    Measured,
    /// cuBLASLt alone.
    Library,
    /// Our own kernels, wherever they can, from the call on in which products are measured ([`Tune`]).
    Own,
}

/// How the kernels of a captured forward follow each other on a card. The results are the same bits. A card or
/// driver that does not capture a manner goes plainly.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// In whichever manner is fastest when it is measured, once for each number of windows; above eight, nothing is
    /// asked for ahead.
    #[default]
    Measured,
    /// One after the other.
    Plain,
    /// Each asks for the next product's matrix before its own work.
    Ahead,
    /// Each starts while the one before drains (compute capability 9.0 and driver 12.4 on).
    Overlapping,
    /// Both.
    Both,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_dir: None,
            unit: None,
            capture: true,
            products: Products::Measured,
            tune: Tune::AtSecond,
            follow: Follow::Measured,
        }
    }
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// Free for any program.
    pub free: u64,
    /// Of the whole device.
    pub total: u64,
    /// What this program's pool hands out now, where the device has pools.
    pub used: Option<u64>,
    /// The most that it ever handed out at once.
    pub peak: Option<u64>,
}
