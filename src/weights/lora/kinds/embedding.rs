//! PEFT's LoRA of an embedding table (`tuners/lora/layer.py`): ΔE = s · scale · (B · A)ᵀ for a table
//! `[rows, width]`, with A `[r, rows]` and B `[width, r]`.

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader};
use crate::error::Result;
use crate::weights::lora::factor::product;
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct OfTable {
    a: Factor,
    b: Factor,
    scale: f64,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let Some((b, a)) = parts.pair(Role::EmbeddingB, Role::EmbeddingA)? else {
        return Ok(None);
    };
    let [width, rows] = product(&b, &a)?;
    parts.expect_weight([rows, width], a.name())?;
    let scale = parts.scale.of_rank(a.rows());
    Ok(Some(Box::new(OfTable { a, b, scale })))
}

impl Change for OfTable {
    fn delta(&self, _: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let (a, b) = (self.a.read(reader)?, self.b.read(reader)?);
        let product = a.t()?.matmul(&b.t()?)?;
        Ok((product * (strength * self.scale))?)
    }
}
