//! `LoHa`: ΔW = s · (α / r) · (w1a · w1b) ⊙ (w2a · w2b) (`LyCORIS`, `lycoris/functional/loha.py`).

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader, without_partner};
use crate::error::Result;
use crate::weights::lora::factor::product;
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct LoHa {
    first: (Factor, Factor),
    second: (Factor, Factor),
    scale: f64,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let first = parts.pair(Role::HadaW1A, Role::HadaW1B)?;
    let second = parts.pair(Role::HadaW2A, Role::HadaW2B)?;
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        (None, None) => return Ok(None),
        (Some((one, _)), None) | (None, Some((one, _))) => return Err(without_partner(one.name())),
    };
    for (left, right) in [&first, &second] {
        parts.expect_weight(product(left, right)?, left.name())?;
    }
    let scale = parts.scale.of_rank(first.1.rows());
    Ok(Some(Box::new(LoHa {
        first,
        second,
        scale,
    })))
}

impl Change for LoHa {
    fn delta(&self, _: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let product = |(left, right): &(Factor, Factor)| -> Result<Tensor> {
            Ok(left.read(reader)?.matmul(&right.read(reader)?)?)
        };
        let both = (product(&self.first)? * product(&self.second)?)?;
        Ok((both * (strength * self.scale))?)
    }
}
