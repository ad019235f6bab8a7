//! `x · weightᵀ`: by cuBLASLt with an algorithm of our choice, or by our own kernels.

use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::failure::device_error;
use super::functions::Address;
use super::library::{Algorithm, Before, Description, Library, Operands};
use crate::error::Result;
use crate::kernels::plan::{Chosen, Kind, MOST_ROWS, ProductShape, Tiles};

/// What makes a product.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Library(Algorithm),
    /// The library, which adds product and bias to the residual stream: a pass over it less where it does not
    /// stay in the card's cache.
    Adding(Algorithm),
    Own(Tiles),
}

impl Way {
    pub(super) fn chosen(self) -> Chosen {
        match self {
            Way::Library(algorithm) => Chosen::Library(algorithm.data),
            Way::Adding(algorithm) => Chosen::Adding(algorithm.data),
            Way::Own(tiles) => Chosen::Own(tiles),
        }
    }
}

/// The descriptions of one product, and what makes it.
#[derive(Debug)]
pub(super) struct Product {
    plain: Description,
    /// Where the product may be added to the residual stream.
    adding: Option<Description>,
    /// What the library's heuristic thinks best.
    likely: Algorithm,
    /// What it proposes besides, the best last.
    others: Vec<Algorithm>,
    way: Way,
}

impl Product {
    /// With the algorithm that the heuristic thinks best.
    pub(super) fn new(library: &Library, shape: &ProductShape) -> Result<Product> {
        let plain = Description::new(shape, Before::Replaced)?;
        let mut others = plain.candidates(library, shape)?;
        others.reverse();
        let none = || device_error(format!("cuBLASLt has no algorithm for {shape:?}"));
        let likely = others.pop().ok_or_else(none)?;
        // Only sums of all windows' rows are f32 and that many.
        let adds = shape.result == Kind::F32 && shape.rows > MOST_ROWS;
        let adding = adds.then(|| Description::new(shape, Before::AddedTo));
        Ok(Product {
            plain,
            adding: adding.transpose()?,
            likely,
            others,
            way: Way::Library(likely),
        })
    }

    /// Goes on to what is next likely to make it, once what should has failed: a proposal of the heuristic is no
    /// promise. False if nothing is left.
    pub(super) fn give_up(&mut self) -> bool {
        let tried =
            matches!(self.way, Way::Library(algorithm) if algorithm.data == self.likely.data);
        if tried {
            let Some(next) = self.others.pop() else {
                return false;
            };
            self.likely = next;
        }
        self.way = Way::Library(self.likely);
        true
    }

    /// The library's likely best one.
    pub(super) fn likely(&self) -> Way {
        Way::Library(self.likely)
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// From now on it is made so. Our own kernels must be able to.
    pub(super) fn make_by(&mut self, way: Way) {
        self.way = way;
    }

    /// How our own kernels make it, if they do.
    pub(super) fn tiles(&self) -> Option<Tiles> {
        match self.way {
            Way::Own(tiles) => Some(tiles),
            Way::Library(_) | Way::Adding(_) => None,
        }
    }

    /// True if it is added to the residual stream, bias and all.
    pub(super) fn adds(&self) -> bool {
        matches!(self.way, Way::Adding(_))
    }

    /// The library's ways, the likely fastest of each kind first.
    pub(super) fn candidates(&self, library: &Library, shape: &ProductShape) -> Result<Vec<Way>> {
        let plain = self.plain.candidates(library, shape)?.into_iter();
        // A library that does not add in these types finds none, or says so.
        let adding = self.adding.as_ref();
        let adding = adding.and_then(|adding| adding.candidates(library, shape).ok());
        let adding = adding.unwrap_or_default().into_iter();
        Ok(plain
            .map(Way::Library)
            .chain(adding.map(Way::Adding))
            .collect())
    }

    /// Takes an algorithm from a file, if the library still thinks that it makes this product so.
    pub(super) fn restore(&mut self, library: &Library, way: Way) -> bool {
        let can = match &way {
            Way::Library(algorithm) => self.plain.takes(library, algorithm),
            Way::Adding(algorithm) => {
                let adding = self.adding.as_ref();
                adding.is_some_and(|adding| adding.takes(library, algorithm))
            }
            Way::Own(_) => false,
        };
        if can {
            self.way = way;
        }
        can
    }

    /// By the library. `bias` is added where the product [is](Self::adds), and is not looked at elsewhere.
    pub(super) fn run(
        &self,
        library: &Library,
        stream: &CudaStream,
        at: Operands,
        bias: Address,
    ) -> Result<()> {
        let on = (library, stream);
        match (&self.way, &self.adding) {
            (Way::Library(algorithm), _) => self.plain.run(on, algorithm, at, bias),
            (Way::Adding(algorithm), Some(adding)) => adding.run(on, algorithm, at, bias),
            _ => Err(device_error(
                "the library is to make a product that is not its own",
            )),
        }
    }
}
