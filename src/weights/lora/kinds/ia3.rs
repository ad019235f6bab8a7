//! (IA)³ (`LyCORIS`, `lycoris/modules/ia3.py`): ΔW = s · W ⊙ w, where w scales the columns
//! (`on_input`) or the rows.

use candle_core::Tensor;

use super::{Change, Factor, Parts, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::Entry;
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
    let shape = if on_input { [1, columns] } else { [rows, 1] };
    let scales = vector(entry, shape)?;
    Ok(Some(Box::new(Ia3 { scales })))
}

/// A row or column, however the file spells its shape.
fn vector(entry: &Entry, shape: [usize; 2]) -> Result<Factor> {
    let length = shape.iter().product();
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
    Factor::of(entry, shape.to_vec())
}

impl Change for Ia3 {
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let scaled = base.broadcast_mul(&self.scales.read(reader)?)?;
        Ok((scaled * strength)?)
    }
}
