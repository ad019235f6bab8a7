//! `LoKr`: ΔW = s · c · (w1 ⊗ w2), each factor whole or a product itself (`LyCORIS`,
//! `lycoris/functional/lokr.py`). c = α / r with the rank of w2 if that is a product, else of w1;
//! two whole factors have c = 1, but PEFT's (`peft/tuners/lokr/layer.py`), which have its configuration's
//! α / r.

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader, without_partner};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::lora::factor::product;
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct LoKr {
    first: Side,
    second: Side,
    scale: f64,
}

/// One of the two factors.
#[derive(Debug)]
enum Side {
    Whole(Factor),
    Product(Factor, Factor),
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let first = Side::find(parts, [Role::LokrW1, Role::LokrW1A, Role::LokrW1B])?;
    let second = Side::find(parts, [Role::LokrW2, Role::LokrW2A, Role::LokrW2B])?;
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => return Err(without_partner(one.name())),
    };
    let ([rows, columns], [inner_rows, inner_columns]) = (first.shape()?, second.shape()?);
    let shape = [
        rows.saturating_mul(inner_rows),
        columns.saturating_mul(inner_columns),
    ];
    parts.expect_weight(shape, first.name())?;
    let rank = second.rank().or_else(|| first.rank());
    let scale = match rank {
        Some(rank) => parts.scale.of_rank(rank),
        None => parts.scale.without_rank(),
    };
    Ok(Some(Box::new(LoKr {
        first,
        second,
        scale,
    })))
}

impl Side {
    fn find(parts: &mut Parts<'_>, [whole, left, right]: [Role; 3]) -> Result<Option<Side>> {
        match (parts.take(whole)?, parts.pair(left, right)?) {
            (Some(one), None) => Ok(Some(Side::Whole(one))),
            (None, Some((left, right))) => Ok(Some(Side::Product(left, right))),
            (None, None) => Ok(None),
            (Some(one), Some(_)) => {
                let message = "the factor is there as a whole and as a product";
                Err(Error::new(ErrorKind::Lora, message).at_tensor(one.name()))
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Side::Whole(one) | Side::Product(one, _) => one.name(),
        }
    }

    fn shape(&self) -> Result<[usize; 2]> {
        match self {
            Side::Whole(one) => Ok([one.rows(), one.columns()]),
            Side::Product(left, right) => product(left, right),
        }
    }

    fn rank(&self) -> Option<usize> {
        match self {
            Side::Whole(_) => None,
            Side::Product(_, right) => Some(right.rows()),
        }
    }

    fn read(&self, reader: Reader<'_>) -> Result<Tensor> {
        match self {
            Side::Whole(one) => one.read(reader),
            Side::Product(left, right) => Ok(left.read(reader)?.matmul(&right.read(reader)?)?),
        }
    }
}

impl Change for LoKr {
    fn delta(&self, _: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let (first, second) = (self.first.read(reader)?, self.second.read(reader)?);
        let ((rows, columns), (inner_rows, inner_columns)) = (first.dims2()?, second.dims2()?);
        let first = first.reshape((rows, 1, columns, 1))?;
        let second = second.reshape((1, inner_rows, 1, inner_columns))?;
        let product = first.broadcast_mul(&second)?;
        let product = product.reshape((rows * inner_rows, columns * inner_columns))?;
        Ok((product * (strength * self.scale))?)
    }
}
