//! FAST ON CUDA CARDS: fused kernels, products by cuBLASLt with measured algorithms, forwards captured
//! as graphs. What is run, and how large everything is, [`plan`](super::plan) decides.

mod buffers;
mod compiled;
mod compiling;
mod engine;
mod failure;
mod functions;
mod graph;
mod library;
mod many_rows;
mod measuring;
mod memory;
mod operations;
mod own_products;
mod pinned;
mod product;
mod running;
mod shared;
mod start;
mod tensors;
mod transfers;
mod trial;
mod trying;
mod weights;

pub(crate) use memory::{memory, release_unused};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Device, Tensor};

use self::buffers::Wanted;
use self::engine::{Engine, Origin, Spliced};
use self::shared::Shared;
use self::transfers::CudaTransfers;
use self::weights::Weights;
use super::plan::{Kind, Place, PooledFrom, Sizes, Spec, WINDOW, is_sound, pieces};
use super::{Batch, Options, Prepared, ReadOut, Reference, WholeEncoder};
use crate::error::Result;

/// Fast kernels on one card.
#[derive(Debug)]
pub(super) struct CudaKernels {
    device: CudaDevice,
    plain: Reference,
    options: Options,
    /// Compiled when they are first expected or needed.
    shared: Mutex<BTreeMap<Kind, Made>>,
    /// As long as a load holds it.
    transfers: Mutex<Weak<CudaTransfers>>,
}

/// What is made for a type of matrices, by whoever comes first.
type Made = Arc<Mutex<Option<Arc<Shared>>>>;

/// A vector for a row, f32.
enum Vector {
    Host(Vec<f32>),
    Card(Tensor),
}

/// What is kept for an encoder; `None` where its tensors are not as the kernels need them.
type Slot = Option<Engine>;

impl CudaKernels {
    pub(super) fn new(device: &CudaDevice, options: &Options) -> Result<CudaKernels> {
        memory::keep_freed(device.cuda_stream().context());
        Ok(CudaKernels {
            device: device.clone(),
            plain: Reference::new(&Device::Cuda(device.clone()))?,
            options: options.clone(),
            shared: Mutex::default(),
            transfers: Mutex::default(),
        })
    }

    fn shared(&self, kind: Kind) -> Result<Arc<Shared>> {
        let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Arc::clone(all.entry(kind).or_default());
        drop(all);
        // Who comes while another thread makes it waits here for that one.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*place {
            return Ok(shared.clone());
        }
        let made = Shared::new(&self.device, kind, &self.options)?;
        Ok(place.insert(Arc::new(made)).clone())
    }

    /// The encoder's engine.
    fn prepare(&self, encoder: Option<WholeEncoder<'_>>) -> Result<Slot> {
        let stream = self.device.cuda_stream();
        let Some(encoder) = encoder else {
            return Ok(None);
        };
        let Some(weights) = Weights::of(&encoder, &stream) else {
            return Ok(None);
        };
        let shared = self.shared(weights.sizes.kind)?;
        let tower = (encoder.tower.heads, encoder.tower.activation);
        Engine::new(&stream, shared, weights, tower, &self.options).map(Some)
    }

    fn run_whole(&self, engine: &Engine, batch: &Batch<'_>) -> Result<Option<ReadOut>> {
        let spec = spec(batch);
        let projects = batch.pooled.is_some_and(|pooled| pooled.projected);
        let sizes = &engine.weights.sizes;
        let reaches = spec.layer >= 1 && spec.deepest() <= engine.weights.n_layers();
        let pooled = batch.pooled.is_none_or(|pooled| pooled.layer >= 1);
        let fits = |vector: &Tensor| vector.dims() == [sizes.width];
        let vectors = batch.vectors.iter().all(|(_, vector)| fits(vector));
        if !reaches || !pooled || !vectors || (projects && sizes.projection == 0) {
            return Ok(None); // what is wrong, if anything is, the plain path says
        }
        if !is_sound(batch, engine.weights.vocabulary) {
            return Ok(None);
        }
        let stream = self.device.cuda_stream();
        let vectors = self.vectors(batch)?;
        let mut out = None;
        for piece in pieces(batch.ends.len()) {
            let run = self.encode_piece(engine, &stream, (batch, &piece), &vectors, &mut out);
            if run.is_err() {
                // Nothing may be dropped while the card still reads it; the first error is told.
                let _ = engine.stream.synchronize();
            }
            run?;
        }
        Ok(out)
    }

    /// Encodes some windows of a batch, and copies what is read to its place in `out`, which is made when the
    /// first are on their way.
    fn encode_piece(
        &self,
        engine: &Engine,
        stream: &CudaStream,
        (batch, windows): (&Batch<'_>, &Range<usize>),
        vectors: &[(usize, Vector)],
        out: &mut Option<ReadOut>,
    ) -> Result<()> {
        let spliced = spliced(stream, windows, vectors);
        let wanted = || {
            let out = match out {
                Some(out) => out,
                None => out.insert(self.unwritten(engine, batch)?),
            };
            Ok(wanted(engine, stream, windows, out))
        };
        let spec = spec(batch);
        engine.encode(stream, (batch, windows.clone()), &spec, &spliced, wanted)
    }

    /// The vectors of some rows as the card takes them.
    fn vectors(&self, batch: &Batch<'_>) -> Result<Vec<(usize, Vector)>> {
        let device = Device::Cuda(self.device.clone());
        let each = batch.vectors.iter().map(|(row, vector)| {
            let vector = vector.to_dtype(DType::F32)?;
            let vector = if vector.device().is_cpu() {
                Vector::Host(vector.to_vec1()?)
            } else {
                Vector::Card(vector.to_device(&device)?.contiguous()?)
            };
            Ok((*row, vector))
        });
        each.collect()
    }

    /// Room for what is read.
    fn unwritten(&self, engine: &Engine, batch: &Batch<'_>) -> Result<ReadOut> {
        let device = Device::Cuda(self.device.clone());
        let (windows, sizes) = (batch.ends.len(), &engine.weights.sizes);
        let room = |shape: &[usize]| tensors::unwritten(shape, DType::F32, &device);
        let pooled = |wanted: bool, columns| wanted.then(|| room(&[windows, columns])).transpose();
        // What was only on the way to its projection stays in the engine.
        let projects = batch.pooled.is_some_and(|pooled| pooled.projected);
        Ok(ReadOut {
            hidden: room(&[windows, WINDOW, sizes.width])?,
            normed: pooled(batch.pooled.is_some() && !projects, sizes.width)?,
            projected: pooled(projects, sizes.projection)?,
        })
    }

    pub(super) fn encode_whole<'a>(
        &self,
        encoder: &dyn Fn() -> Option<WholeEncoder<'a>>,
        batch: &Batch<'_>,
        prepared: &Prepared,
    ) -> Result<Option<ReadOut>> {
        let slot = prepared.get_or_make(|| Ok(Arc::new(self.prepare(encoder())?)))?;
        match slot.downcast_ref::<Slot>() {
            Some(Some(engine)) => self.run_whole(engine, batch),
            _ => Ok(None),
        }
    }
}

/// The vectors of some windows, by row of these.
fn spliced<'a>(
    stream: &CudaStream,
    windows: &Range<usize>,
    vectors: &'a [(usize, Vector)],
) -> Vec<Spliced<'a>> {
    let rows = WINDOW * windows.start..WINDOW * windows.end;
    let inside = vectors.iter().filter(|(row, _)| rows.contains(row));
    let placed = inside.filter_map(|(row, vector)| {
        let from = match vector {
            Vector::Host(values) => Origin::Host(values),
            Vector::Card(tensor) => Origin::Card(tensors::address(tensor, stream)?.0),
        };
        let row = row - rows.start;
        Some(Spliced { row, from })
    });
    placed.collect()
}

/// What is read of some windows, and where in `out` it belongs.
fn wanted(
    engine: &Engine,
    stream: &CudaStream,
    windows: &Range<usize>,
    out: &ReadOut,
) -> Vec<Wanted> {
    let sizes = &engine.weights.sizes;
    let places = [
        (Place::Hidden, Some(&out.hidden)),
        (Place::Pooled, out.normed.as_ref()),
        (Place::Projected, out.projected.as_ref()),
    ];
    let wanted = places.into_iter().filter_map(|(from, tensor)| {
        let (start, kind) = tensors::address(tensor?, stream)?;
        let before = Sizes::rows(from, windows.start) * sizes.row(from);
        let to = start + (before * kind.bytes()) as functions::Address;
        Some(Wanted { from, to })
    });
    wanted.collect()
}

fn spec(batch: &Batch<'_>) -> Spec {
    Spec {
        layer: batch.layer,
        final_norm: batch.final_norm,
        pooled: batch.pooled.map(|pooled| PooledFrom {
            layer: pooled.layer,
            projected: pooled.projected,
        }),
        hidden_keys: batch.hidden_keys.is_some(),
    }
}
