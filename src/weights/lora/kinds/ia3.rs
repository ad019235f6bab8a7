//! (IA)³ (`LyCORIS`, `lycoris/modules/ia3.py`): ΔW = s · W ⊙ w, where w scales the columns
//! (`on_input`) or the rows.

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::lora::roles::Role;

/// `[1, in]` or `[out, 1]`.
#[derive(Debug)]
struct Ia3 {
    scales: Factor,
}

pub(super) fn find(parts: &mut Parts<'_>) -> Result<Option<Box<dyn Change>>> {
    let Some(flag) = parts.roles.remove(&Role::OnInput) else {
        return Ok(None);
    };
    let wrong = |message: &str| Error::new(ErrorKind::Lora, message).at_tensor(&flag.file_name);
    let (Some(entry), &[rows, columns]) = (parts.roles.remove(&Role::Weight), parts.weight) else {
        return Err(wrong("the vector that belongs to it is missing"));
    };
    if flag.shape.iter().any(|side| *side != 1) || flag.n_bytes > 8 {
        return Err(wrong("one flag was expected"));
    }
    let on_input = parts.archive.read_all(flag)?.iter().any(|byte| *byte != 0);
    let (shape, length) = if on_input {
        ([1, columns], columns)
    } else {
        ([rows, 1], rows)
    };
    let n_values = entry
        .shape
        .iter()
        .try_fold(1_usize, |product, side| product.checked_mul(*side));
    if n_values != Some(length) || entry.shape.iter().filter(|side| **side != 1).count() > 1 {
        let message = format!(
            "shape {:?}, but the encoder needs {length} values",
            entry.shape
        );
        return Err(Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name));
    }
    let scales = Factor::of(entry, shape.to_vec())?;
    Ok(Some(Box::new(Ia3 { scales })))
}

impl Change for Ia3 {
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let scaled = base.broadcast_mul(&self.scales.read(reader)?)?;
        Ok((scaled * strength)?)
    }
}
