//! What all encoders of one device and one type of matrices share: compiled kernels, the library of
//! products, and which algorithm serves which product.
#![expect(unsafe_code, reason = "streams are ordered by events of our own")]

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};

use super::compiled::Compiler;
use super::failure::Tried;
use super::functions::Functions;
use super::library::{Algorithm, Library, WORKSPACE};
use super::product::{Product, Way};
use crate::error::Result;
use crate::kernels::plan::{Card, Chosen, Kind, ProductShape, Tiles, Tuned};
use crate::kernels::{Options, Products};

#[derive(Debug)]
pub(super) struct Shared {
    /// candle's context again, with a setting of its own: no events for each buffer.
    pub(super) context: Arc<CudaContext>,
    pub(super) functions: Functions,
    pub(super) library: Library,
    products: Products,
    tuned: Mutex<Tuned>,
}

impl Shared {
    pub(super) fn new(device: &CudaDevice, kind: Kind, options: &Options) -> Result<Shared> {
        let ordinal = device.cuda_stream().context().ordinal();
        let context = CudaContext::new(ordinal).tried("open the card")?;
        // SAFETY: buffers of this context are used on streams of `Engine` only, or on candle's after
        // an event of ours; each says so where it does.
        unsafe { context.disable_event_tracking() };
        let card = card(&context, options)?;
        let compiler = Compiler {
            context: context.clone(),
            kind,
            folder: options.cache_dir.clone(),
        };
        let functions = Functions::load(compiler, card.driver)?;
        let tuned = Mutex::new(Tuned::open(card, options.cache_dir.as_deref()));
        let library = Library::new()?;
        Ok(Shared {
            context,
            functions,
            library,
            products: options.products,
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
        let restored = known.is_some_and(|chosen| self.restored(&mut product, shape, chosen));
        Ok((product, restored))
    }

    /// A choice from a file is believed as far as it can be made.
    fn restored(&self, product: &mut Product, shape: &ProductShape, chosen: Chosen) -> bool {
        match chosen {
            Chosen::Library(data) => {
                product.restore(&self.library, Way::Library(Algorithm { data }))
            }
            Chosen::Adding(data) => product.restore(&self.library, Way::Adding(Algorithm { data })),
            Chosen::Own(tiles) => {
                let own = self.functions.products.as_ref();
                let can = own.is_some_and(|own| own.has(tiles, shape, WORKSPACE));
                if can {
                    product.make_by(Way::Own(tiles));
                }
                can
            }
        }
    }

    /// All that can make a product and is allowed to, the library's likely best first.
    pub(super) fn ways(&self, shape: &ProductShape, product: &Product) -> Result<Vec<Way>> {
        let own = self.tiles(shape, WORKSPACE)?.into_iter();
        let own: Vec<Way> = own.map(Way::Own).collect();
        if self.products == Products::Own && !own.is_empty() {
            return Ok(own);
        }
        let library = product.candidates(&self.library, shape)?.into_iter();
        Ok(library.chain(own).collect())
    }

    /// Our own ways to make a product. Where they cannot be compiled and others do, there are none.
    fn tiles(&self, shape: &ProductShape, room: usize) -> Result<Vec<Tiles>> {
        let own = self.functions.products.as_ref();
        let Some(own) = own.filter(|_| self.products != Products::Library) else {
            return Ok(Vec::new());
        };
        match own.tiles(shape, room) {
            Err(_) if self.products == Products::Measured => Ok(Vec::new()),
            tiles => tiles,
        }
    }

    /// Our own kernels for a product whose result stays in one piece, where nothing else is wanted.
    pub(super) fn only_own(&self, shape: &ProductShape) -> Result<Option<Tiles>> {
        if self.products != Products::Own {
            return Ok(None);
        }
        let mut own = self.tiles(shape, usize::MAX)?.into_iter();
        Ok(own.rfind(|tiles| tiles.parts == 1))
    }

    /// A choice for all encoders of this process, and for the next one.
    pub(super) fn keep_choice(&self, shape: &ProductShape, way: Way) {
        let mut tuned = self.tuned.lock().unwrap_or_else(PoisonError::into_inner);
        tuned.insert(*shape, way.chosen());
    }

    /// Keeps the choices for the next run. A folder that cannot be written costs the next run some
    /// milliseconds, so it is no error.
    pub(super) fn save_choices(&self) {
        let tuned = self.tuned.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = tuned.save();
    }
}

fn card(context: &CudaContext, options: &Options) -> Result<Card> {
    let (products, capture) = (options.products, options.capture);
    let mut driver = 0;
    // SAFETY: the call writes one number.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
    status.result().tried("tell the driver's version")?;
    Ok(Card {
        name: context.name().tried("tell the card's name")?,
        capability: context.compute_capability().tried("tell the card's kind")?,
        driver,
        cublaslt: Library::version(),
        // What is captured is measured without the host's times.
        products: format!(
            "{products:?}, {}",
            if capture { "captured" } else { "enqueued" }
        ),
    })
}
