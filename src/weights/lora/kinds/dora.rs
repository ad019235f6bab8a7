//! `DoRA`, in the form of its paper and of PEFT (`tuners/lora/dora.py`): V = W + ΔW at strength 1;
//! every row (or column) of V gets the length m; ΔW = s · (m ⊙ V / ‖V‖ − W).
//!
//! The tools disagree: `ComfyUI` divides by the norms of W where m is a column, A1111 always takes
//! columns, `LyCORIS` puts the strength inside, diffusers leaves m out. At strength 1 this is `LyCORIS`.

use candle_core::{D, Tensor};

use super::{Change, Factor, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::Entry;

#[derive(Debug)]
struct Dora {
    inner: Box<dyn Change>,
    /// `[out, 1]` or `[1, in]`.
    magnitude: Factor,
}

/// Puts the lengths around the one change that is there.
pub(super) fn wrap(
    magnitude: &Entry,
    changes: &mut Vec<Box<dyn Change>>,
    weight: &[usize],
) -> Result<()> {
    let wrong =
        |message: String| Err(Error::new(ErrorKind::Lora, message).at_tensor(&magnitude.file_name));
    let [rows, columns] = *weight else {
        return wrong("DoRA is for matrices".to_owned());
    };
    let Some(shape) = shape_for(magnitude, rows, columns) else {
        let found = &magnitude.shape;
        return wrong(format!(
            "shape {found:?}, but the encoder's matrix is {weight:?}: [out, 1] or [1, in]"
        ));
    };
    let n_changes = changes.len();
    if n_changes != 1 {
        return wrong(format!("DoRA around {n_changes} changes; it is for one"));
    }
    let magnitude = Factor::of(magnitude, shape.to_vec())?;
    let inner = changes.remove(0);
    changes.push(Box::new(Dora { inner, magnitude }));
    Ok(())
}

/// Lengths of `[out, 1]` and `[out]` are of rows, those of `[1, in]` of columns.
fn shape_for(magnitude: &Entry, rows: usize, columns: usize) -> Option<[usize; 2]> {
    match magnitude.shape[..] {
        [length] if length == rows => Some([rows, 1]),
        [length, 1] | [length, 1, 1, 1] if length == rows => Some([rows, 1]),
        [1, length] | [1, length, 1, 1] if length == columns => Some([1, columns]),
        _ => None,
    }
}

impl Change for Dora {
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        let moved = self.inner.apply(base, 1.0, reader)?;
        let along = if self.magnitude.columns() == 1 {
            D::Minus1
        } else {
            D::Minus2
        };
        let norms = moved.sqr()?.sum_keepdim(along)?.sqrt()?;
        let norms = (norms + f64::from(f32::EPSILON))?;
        let factors = (self.magnitude.read(reader)? / norms)?;
        let moved = moved.broadcast_mul(&factors)?;
        Ok(((moved - base)? * strength)?)
    }
}
