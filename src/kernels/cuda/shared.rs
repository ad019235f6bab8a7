//! What all encoders of one device and one type of matrices share: compiled kernels, the library of
//! products, and which algorithm serves which product.
#![expect(unsafe_code, reason = "streams are ordered by events of our own")]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaStream, sys};

use super::failure::Tried;
use super::functions::{Address, Functions};
use super::product::{Library, Operands, Product};
use crate::error::Result;
use crate::kernels::plan::{Card, Kind, ProductShape, Tuned};

/// Matrices that an algorithm is measured on: other ones each time, as in a forward, so that they
/// come from the card's memory and not from its cache.
const MEASURED_MATRICES: usize = 8;

/// Times that each algorithm goes over them.
const MEASURED_ROUNDS: usize = 3;

#[derive(Debug)]
pub(super) struct Shared {
    /// candle's context again, with a setting of its own: no events for each buffer.
    pub(super) context: Arc<CudaContext>,
    pub(super) functions: Functions,
    pub(super) library: Library,
    tuned: Mutex<Tuned>,
}

impl Shared {
    pub(super) fn new(device: &CudaDevice, kind: Kind, cache: Option<&Path>) -> Result<Shared> {
        let ordinal = device.cuda_stream().context().ordinal();
        let context = CudaContext::new(ordinal).tried("open the card")?;
        // SAFETY: buffers of this context are used on streams of `Engine` only, or on candle's after
        // an event of ours; each says so where it does.
        unsafe { context.disable_event_tracking() };
        let functions = Functions::load(&context, kind)?;
        let tuned = Mutex::new(Tuned::open(card(&context)?, cache));
        let library = Library::new()?;
        Ok(Shared {
            context,
            functions,
            library,
            tuned,
        })
    }

    /// A product with the algorithm that is known to be best, and whether one is.
    pub(super) fn product(&self, shape: &ProductShape) -> Result<(Product, bool)> {
        let mut product = Product::new(&self.library, shape)?;
        let known = self
            .tuned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(shape);
        let restored = known.is_some_and(|chosen| product.restore(&self.library, chosen));
        Ok((product, restored))
    }

    /// Measures every algorithm for a product and takes the fastest. `out` holds nonsense afterwards.
    pub(super) fn tune(
        &self,
        stream: &CudaStream,
        shape: &ProductShape,
        product: &mut Product,
        matrices: &[Address],
        at: Operands,
    ) -> Result<()> {
        let mut best = None;
        for algorithm in product.candidates(&self.library, shape)? {
            let run = |weight: &Address| {
                let at = Operands {
                    weight: *weight,
                    ..at
                };
                product.run_with(&self.library, stream, at, &algorithm)
            };
            let matrices = &matrices[..matrices.len().min(MEASURED_MATRICES)];
            let Ok(time) = self.timed(stream, || matrices.iter().try_for_each(run)) else {
                continue; // one that the heuristic proposes and the library refuses
            };
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, algorithm));
            }
        }
        if let Some((_, algorithm)) = best {
            let chosen = product.choose(algorithm);
            let mut tuned = self.tuned.lock().unwrap_or_else(PoisonError::into_inner);
            tuned.insert(*shape, chosen);
        }
        Ok(())
    }

    /// Milliseconds on the card, after one round to warm up.
    fn timed(&self, stream: &CudaStream, run: impl Fn() -> Result<()>) -> Result<f32> {
        let event = || {
            let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
            self.context.new_event(flags).tried("make an event")
        };
        let (start, end) = (event()?, event()?);
        run()?;
        start.record(stream).tried("record an event")?;
        for _ in 0..MEASURED_ROUNDS {
            run()?;
        }
        end.record(stream).tried("record an event")?;
        start.elapsed_ms(&end).tried("measure a product")
    }

    /// Keeps the choices for the next run. A folder that cannot be written costs the next run some
    /// milliseconds, so it is no error.
    pub(super) fn save_choices(&self) {
        let tuned = self.tuned.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = tuned.save();
    }
}

fn card(context: &CudaContext) -> Result<Card> {
    let mut driver = 0;
    // SAFETY: the call writes one number.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
    status.result().tried("tell the driver's version")?;
    Ok(Card {
        name: context.name().tried("tell the card's name")?,
        capability: context.compute_capability().tried("tell the card's kind")?,
        driver,
        cublaslt: Library::version(),
    })
}
