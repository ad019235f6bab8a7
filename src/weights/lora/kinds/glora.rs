//! `GLoRA` (`LyCORIS`, `lycoris/modules/glora.py`): ΔW = s · (α / r) · (b1 · b2 + (W · a1) · a2); older
//! files have every pair the other way round. The shapes tell which, and where both would do
//! (square with a rank as large), the older is meant, as in `ComfyUI` (`comfy/weight_adapter/glora.py`).

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader, without_partner};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::lora::roles::Role;

/// `b[0] · b[1] + (W · a[0]) · a[1]`
#[derive(Debug)]
struct Glora {
    a: [Factor; 2],
    b: [Factor; 2],
    scale: f64,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let a = parts.pair(Role::GloraA1, Role::GloraA2)?;
    let b = parts.pair(Role::GloraB1, Role::GloraB2)?;
    let ((a1, a2), (b1, b2)) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return Ok(None),
        (Some((one, _)), None) | (None, Some((one, _))) => return Err(without_partner(one.name())),
    };
    let (a, b) = if fits([&a2, &a1], [&b2, &b1], parts.weight) {
        ([a2, a1], [b2, b1])
    } else if fits([&a1, &a2], [&b1, &b2], parts.weight) {
        ([a1, a2], [b1, b2])
    } else {
        return Err(misfit(&b1, parts.weight));
    };
    let scale = parts.scale.of_rank(b[0].columns());
    Ok(Some(Box::new(Glora { a, b, scale })))
}

/// True if `b[0] · b[1]` and `(W · a[0]) · a[1]` can be had, and are like a weight W.
fn fits(a: [&Factor; 2], b: [&Factor; 2], weight: &[usize]) -> bool {
    let [out, columns] = *weight else {
        return false;
    };
    let rank = b[0].columns();
    b[0].shape() == [out, rank]
        && b[1].shape() == [rank, columns]
        && a[0].shape() == [columns, rank]
        && a[1].shape() == [rank, columns]
}

fn misfit(factor: &Factor, weight: &[usize]) -> Error {
    let message = format!(
        "shape {:?} and its partners fit in no order to the encoder's {weight:?}",
        factor.shape()
    );
    Error::new(ErrorKind::Lora, message).at_tensor(factor.name())
}

impl Change for Glora {
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let added = self.b[0].read(reader)?.matmul(&self.b[1].read(reader)?)?;
        let turned = base.matmul(&self.a[0].read(reader)?)?;
        let turned = turned.matmul(&self.a[1].read(reader)?)?;
        Ok(((added + turned)? * (strength * self.scale))?)
    }
}
