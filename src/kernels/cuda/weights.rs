//! The tensors of an encoder as addresses, checked once; the tensors are kept alive beside them.

use candle_core::Tensor;
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::functions::{Address, NormAddress};
use super::tensors::address;
use crate::kernels::plan::{ALIGNMENT, Kind, Matrix, NormAt, Sizes, WINDOW};
use crate::kernels::{Block, NormOf, Product, WholeEncoder};

/// What kernels read of vectors at once.
const VECTOR_ALIGNMENT: usize = 16;

#[derive(Debug)]
pub(super) struct Weights {
    layers: Vec<LayerAt>,
    pub(super) table: Address,
    pub(super) positions: Address,
    final_norm: NormAddress,
    projection: Option<Address>,
    pub(super) vocabulary: usize,
    pub(super) sizes: Sizes,
    /// Nobody reads it: the addresses are those of these.
    _tensors: Vec<Tensor>,
}

#[derive(Clone, Copy, Debug)]
struct ProductAt {
    weight: Address,
    bias: Address,
}

#[derive(Clone, Copy, Debug)]
struct LayerAt {
    norm1: NormAddress,
    query_key_value: ProductAt,
    out: ProductAt,
    norm2: NormAddress,
    up: ProductAt,
    down: ProductAt,
}

impl Weights {
    /// `None` if a tensor has another shape, type or place than the kernels need.
    pub(super) fn of(encoder: &WholeEncoder<'_>, stream: &CudaStream) -> Option<Weights> {
        let (vocabulary, width) = encoder.token_embedding.dims2().ok()?;
        let sizes = sizes(encoder, width)?;
        let mut taken = Taken {
            stream,
            sizes,
            tensors: Vec::new(),
        };
        let layers = encoder.tower.blocks.iter().enumerate();
        let layers = layers.map(|(index, block)| taken.layer(index, block));
        Some(Weights {
            layers: layers.collect::<Option<_>>()?,
            table: taken.matrix(encoder.token_embedding, [vocabulary, width])?,
            positions: taken.vector(encoder.position_embedding, WINDOW * width)?,
            final_norm: taken.norm(encoder.final_norm)?,
            projection: match encoder.projection {
                Some(matrix) => Some(taken.matrix(matrix, sizes.matrix(Matrix::Projection))?),
                None => None,
            },
            vocabulary,
            sizes,
            _tensors: taken.tensors,
        })
    }

    pub(super) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn norm(&self, which: NormAt) -> NormAddress {
        match which {
            NormAt::First(layer) => self.layers[layer].norm1,
            NormAt::Second(layer) => self.layers[layer].norm2,
            NormAt::Final => self.final_norm,
        }
    }

    /// A matrix and its bias, 0 where it has none.
    pub(super) fn product(&self, which: Matrix) -> [Address; 2] {
        let found = match which {
            Matrix::QueryKeyValue(layer) => self.layers[layer].query_key_value,
            Matrix::Out(layer) => self.layers[layer].out,
            Matrix::Up(layer) => self.layers[layer].up,
            Matrix::Down(layer) => self.layers[layer].down,
            Matrix::Projection => return [self.projection.unwrap_or_default(), 0],
        };
        [found.weight, found.bias]
    }
}

/// `None` for sizes that the kernels are not made for.
fn sizes(encoder: &WholeEncoder<'_>, width: usize) -> Option<Sizes> {
    let projected = encoder.projection.map(|matrix| matrix.dim(0).ok());
    let sizes = Sizes {
        width,
        mlp_width: encoder
            .tower
            .blocks
            .first()?
            .up
            .weight
            .tensor()?
            .dim(0)
            .ok()?,
        projection: projected.unwrap_or(Some(0))?,
        kind: Kind::of(encoder.token_embedding.dtype())?,
    };
    let eights = [sizes.mlp_width, sizes.projection];
    let eights = eights.iter().all(|size| size.is_multiple_of(8));
    let heads = encoder.tower.heads.checked_mul(64)?;
    (width > 0 && width == heads && eights).then_some(sizes)
}

struct Taken<'a> {
    stream: &'a CudaStream,
    sizes: Sizes,
    tensors: Vec<Tensor>,
}

impl Taken<'_> {
    fn layer(&mut self, index: usize, block: &Block<'_>) -> Option<LayerAt> {
        Some(LayerAt {
            norm1: self.norm(block.norm1)?,
            query_key_value: self.product(block.query_key_value, Matrix::QueryKeyValue(index))?,
            out: self.product(block.out, Matrix::Out(index))?,
            norm2: self.norm(block.norm2)?,
            up: self.product(block.up, Matrix::Up(index))?,
            down: self.product(block.down, Matrix::Down(index))?,
        })
    }

    fn product(&mut self, product: Product<'_>, which: Matrix) -> Option<ProductAt> {
        let [rows, columns] = self.sizes.matrix(which);
        Some(ProductAt {
            weight: self.matrix(product.weight.tensor()?, [rows, columns])?,
            bias: self.vector(product.bias, rows)?,
        })
    }

    fn norm(&mut self, norm: NormOf<'_>) -> Option<NormAddress> {
        Some(NormAddress {
            weight: self.vector(norm.weight, self.sizes.width)?,
            bias: self.vector(norm.bias, self.sizes.width)?,
        })
    }

    fn matrix(&mut self, tensor: &Tensor, shape: [usize; 2]) -> Option<Address> {
        let fits = tensor.dims() == shape;
        fits.then(|| self.placed(tensor, self.sizes.kind, ALIGNMENT))
            .flatten()
    }

    fn vector(&mut self, tensor: &Tensor, values: usize) -> Option<Address> {
        let fits = tensor.elem_count() == values;
        fits.then(|| self.placed(tensor, Kind::F32, VECTOR_ALIGNMENT))
            .flatten()
    }

    fn placed(&mut self, tensor: &Tensor, kind: Kind, alignment: usize) -> Option<Address> {
        let (address, found) = address(tensor, self.stream)?;
        if found != kind || !address.is_multiple_of(alignment as Address) {
            return None;
        }
        self.tensors.push(tensor.clone());
        Some(address)
    }
}
