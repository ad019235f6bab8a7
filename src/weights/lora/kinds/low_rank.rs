//! `LoRA` and `LoCon`: ΔW = s · (α / r) · up · down (`networks/lora.py` of sd-scripts, PEFT's
//! `tuners/lora/layer.py`).

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader, without_partner};
use crate::error::Result;
use crate::weights::lora::factor::product;
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct LowRank {
    up: Factor,
    down: Factor,
    scale: f64,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let Some((up, down)) = parts.pair(Role::Up, Role::Down)? else {
        return match parts.roles.get(&Role::UpBias) {
            Some(entry) => Err(without_partner(&entry.file_name)),
            None => Ok(None),
        };
    };
    parts.expect_weight(product(&up, &down)?, down.name())?;
    let scale = parts.scale.of_rank(down.rows());
    Ok(Some(Box::new(LowRank { up, down, scale })))
}

impl Change for LowRank {
    fn delta(&self, _: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let product = self.up.read(reader)?.matmul(&self.down.read(reader)?)?;
        Ok((product * (strength * self.scale))?)
    }
}
