//! candle's tensors ↔ the slices that the layers run on.

use std::ops::Range;

use candle_core::{CpuStorage, Device, Storage, StorageRef, Tensor};

use super::attention::HEAD;
use super::groups::through;
use super::matrix::{Matrix, Values};
use super::panel::ROWS;
use super::rooms::Shelf;
use super::stack::{Layer, Stack, Weights};
use super::unit::Units;
use crate::error::Result;
use crate::kernels::{Block, MatrixOf, NormOf, Product, Tower};
use crate::mapped::{Mapped, MappedValues};

/// [`Kernels::run`](crate::kernels::Kernels::run).
pub(super) fn run(
    (unit, shelf): (Units, &Shelf),
    tower: &Tower<'_>,
    x: &Tensor,
    hidden_keys: Option<&Tensor>,
    keep: &[usize],
) -> Result<Option<Vec<Tensor>>> {
    let (windows, rows, width) = x.dims3()?;
    let hidden = hidden_keys.map(Tensor::contiguous).transpose()?;
    let x = x.contiguous()?;
    let held = HeldRun::of(tower, &x, hidden.as_ref());
    let Some((layers, input, hidden)) = held.as_ref().and_then(HeldRun::slices) else {
        return Ok(None);
    };
    let keys_fit = hidden.is_none_or(|keys| keys.len() == windows * ROWS);
    let shapes = rows == ROWS && width == tower.heads * HEAD && keys_fit;
    if !shapes || !fit(&layers, width, keep) {
        return Ok(None);
    }
    if layers.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let stack = Stack {
        unit,
        layers: &layers,
        activation: tower.activation,
        width,
        hidden,
        input,
    };
    let kept = through((unit, shelf), &stack, windows, keep);
    states(kept, (windows, ROWS, width)).map(Some)
}

fn states(kept: Vec<Vec<f32>>, shape: (usize, usize, usize)) -> Result<Vec<Tensor>> {
    let each = kept.into_iter();
    let each = each.map(|values| Tensor::from_vec(values, shape, &Device::Cpu));
    Ok(each.collect::<candle_core::Result<_>>()?)
}

/// True if the layers are alike, of this width, and all that are to be kept are among them.
fn fit(layers: &[Layer<'_>], width: usize, keep: &[usize]) -> bool {
    let mlp = layers.first().map_or(0, |layer| layer.up.matrix.rows);
    layers.iter().all(|layer| layer.fits(width, mlp))
        && keep.iter().all(|layer| (1..=layers.len()).contains(layer))
}

/// All that a run reads, held.
struct HeldRun<'a> {
    blocks: Vec<HeldBlock<'a>>,
    input: Held<'a>,
    hidden: Option<Held<'a>>,
}

impl<'a> HeldRun<'a> {
    fn of(tower: &Tower<'a>, input: &'a Tensor, hidden: Option<&'a Tensor>) -> Option<HeldRun<'a>> {
        Some(HeldRun {
            blocks: tower.blocks.iter().map(hold).collect::<Option<_>>()?,
            input: Held::new(input)?,
            hidden: match hidden {
                Some(hidden) => Some(Held::new(hidden)?),
                None => None,
            },
        })
    }

    /// The layers, what goes into them, and which keys are hidden.
    #[expect(clippy::type_complexity, reason = "taken apart where it is made")]
    fn slices(&self) -> Option<(Vec<Layer<'_>>, &[f32], Option<&[f32]>)> {
        let layers = self.blocks.iter().map(layer).collect::<Option<_>>()?;
        let hidden = match &self.hidden {
            Some(hidden) => Some(hidden.floats()?),
            None => None,
        };
        Some((layers, self.input.floats()?, hidden))
    }
}

/// A block's tensors, held: norms, then products.
struct HeldBlock<'a> {
    norms: [[Held<'a>; 2]; 2],
    products: [(Vec<HeldMatrix<'a>>, Held<'a>); 4],
}

fn hold<'a>(block: &Block<'a>) -> Option<HeldBlock<'a>> {
    let norm = |norm: NormOf<'a>| Some([Held::new(norm.weight)?, Held::new(norm.bias)?]);
    let product =
        |product: Product<'a>| Some((HeldMatrix::all(product.weight)?, Held::new(product.bias)?));
    Some(HeldBlock {
        norms: [norm(block.norm1)?, norm(block.norm2)?],
        products: [
            product(block.query_key_value)?,
            product(block.out)?,
            product(block.up)?,
            product(block.down)?,
        ],
    })
}

fn layer<'a>(held: &'a HeldBlock<'_>) -> Option<Layer<'a>> {
    let norm = |norm: &'a [Held<'_>; 2]| Some([norm[0].floats()?, norm[1].floats()?]);
    let [query_key_value, out, up, down] = &held.products;
    Some(Layer {
        norm1: norm(&held.norms[0])?,
        query_key_value: parts(query_key_value)?,
        out: only(out)?,
        norm2: norm(&held.norms[1])?,
        up: only(up)?,
        down: only(down)?,
    })
}

/// Matrices one below the other, each with its part of the bias.
fn parts<'a>((matrices, bias): &'a (Vec<HeldMatrix<'_>>, Held<'_>)) -> Option<Vec<Weights<'a>>> {
    let mut rest = bias.floats()?;
    let mut parts = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let matrix = matrix.matrix()?;
        let bias;
        (bias, rest) = rest.split_at_checked(matrix.rows)?;
        parts.push(Weights { matrix, bias });
    }
    rest.is_empty().then_some(parts)
}

/// The same of a lone matrix.
fn only<'a>(product: &'a (Vec<HeldMatrix<'_>>, Held<'_>)) -> Option<Weights<'a>> {
    match parts(product)?[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// A matrix, held wherever it lies.
enum HeldMatrix<'a> {
    Tensor(Held<'a>, (usize, usize)),
    Mapped(&'a Mapped),
}

impl<'a> HeldMatrix<'a> {
    /// At least one.
    fn all(matrix: MatrixOf<'a>) -> Option<Vec<HeldMatrix<'a>>> {
        let held = match matrix {
            MatrixOf::Tensor(tensor) => {
                let held = HeldMatrix::Tensor(Held::new(tensor)?, tensor.dims2().ok()?);
                vec![held]
            }
            MatrixOf::Mapped(parts) => parts.iter().map(HeldMatrix::Mapped).collect(),
        };
        (!held.is_empty()).then_some(held)
    }

    fn matrix(&self) -> Option<Matrix<'_>> {
        let (values, (rows, depth)) = match self {
            HeldMatrix::Tensor(held, shape) => (held.values()?, *shape),
            HeldMatrix::Mapped(mapped) => (in_file(mapped), mapped.dims().into()),
        };
        Some(Matrix {
            values,
            rows,
            depth,
        })
    }
}

fn in_file(mapped: &Mapped) -> Values<'_> {
    match mapped.values() {
        MappedValues::F32(all) => Values::F32(all),
        MappedValues::F16(all) => Values::F16(all),
        MappedValues::Bf16(all) => Values::Bf16(all),
    }
}

/// A tensor's storage, held while its values are read.
pub(super) struct Held<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> Held<'a> {
    /// `None` if the tensor is not contiguous.
    pub(super) fn new(tensor: &'a Tensor) -> Option<Held<'a>> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, end) = layout.contiguous_offsets()?;
        Some(Held {
            storage,
            range: start..end,
        })
    }

    /// `None` if they are not on the CPU, or of another type.
    pub(super) fn values(&self) -> Option<Values<'_>> {
        let range = self.range.clone();
        let Storage::Cpu(storage) = &*self.storage else {
            return None;
        };
        Some(match storage {
            CpuStorage::F32(all) => Values::F32(&all[range]),
            CpuStorage::F16(all) => Values::F16(&all[range]),
            CpuStorage::BF16(all) => Values::Bf16(&all[range]),
            _ => return None,
        })
    }

    /// The same where only f32 will do.
    pub(super) fn floats(&self) -> Option<&[f32]> {
        match self.values()? {
            Values::F32(all) => Some(all),
            Values::F16(_) | Values::Bf16(_) => None,
        }
    }
}
