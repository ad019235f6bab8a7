//! Tensors of a pickle → places in the file. Every view is checked against its storage, and every
//! storage against the bytes that it has.

use super::broken;
use super::tree::Found;
use super::value::{Storage, Tensor};
use crate::error::{Error, Result};
use crate::weights::format::header::Announced;
use crate::weights::format::stored::Form;

/// Places all tensors; `locate` gives the place of a storage's bytes and how many there are.
pub(super) fn all(
    found: &Found,
    length: u64,
    mut locate: impl FnMut(&Storage) -> Result<(u64, u64)>,
) -> Result<Vec<Announced>> {
    let mut announced = Vec::with_capacity(found.tensors.len());
    for (name, tensor) in &found.tensors {
        let placed = locate(&tensor.storage)
            .and_then(|(start, n_bytes)| one(tensor, start, n_bytes, length));
        let (start, n_bytes, form) = placed.map_err(|error| error.at_tensor(name))?;
        announced.push(Announced {
            name: name.clone(),
            stored: tensor.dtype.into(),
            shape: tensor.shape.clone(),
            start,
            n_bytes,
            form,
        });
    }
    Ok(announced)
}

/// Start, bytes of all values in order, and how they lie.
fn one(tensor: &Tensor, start: u64, there: u64, length: u64) -> Result<(u64, u64, Form)> {
    let storage = &tensor.storage;
    let size = tensor.dtype.bitsize() as u64 / 8;
    match storage.n_bytes() {
        Some(needed) if needed <= there => {}
        needed => return Err(shorter(storage, needed, there)),
    }
    let n_bytes = n_bytes(tensor, length)?;
    let first = tensor.offset.checked_mul(size);
    let end = extent(tensor).and_then(|extent| extent.checked_mul(size)?.checked_add(first?));
    let (Some(first), Some(_)) = (first, end.filter(|end| *end <= there)) else {
        let message = format!(
            "shape {:?} with strides {:?} from value {} on lies outside its storage `{}` of \
             {there} bytes",
            tensor.shape, tensor.strides, tensor.offset, storage.key
        );
        return Err(broken(message));
    };
    Ok((start + first, n_bytes, form(tensor)))
}

/// What all values take; no more than the file has.
fn n_bytes(tensor: &Tensor, length: u64) -> Result<u64> {
    let (shape, size) = (&tensor.shape, tensor.dtype.bitsize() as u64 / 8);
    let values = shape
        .iter()
        .try_fold(1_u64, |product, side| product.checked_mul(*side as u64));
    let n_bytes = values.and_then(|values| values.checked_mul(size));
    n_bytes.filter(|n_bytes| *n_bytes <= length).ok_or_else(|| {
        broken(format!(
            "shape {shape:?} takes more bytes than the file's {length}"
        ))
    })
}

/// Values from the first to behind the last.
fn extent(tensor: &Tensor) -> Option<u64> {
    if tensor.shape.contains(&0) {
        return Some(0);
    }
    let sides = tensor.shape.iter().zip(&tensor.strides);
    sides.into_iter().try_fold(1_u64, |extent, (side, stride)| {
        stride.checked_mul(*side as u64 - 1)?.checked_add(extent)
    })
}

/// Dense if the values lie row by row without gaps.
fn form(tensor: &Tensor) -> Form {
    let mut expected = 1_u64;
    let sides = tensor.shape.iter().zip(&tensor.strides).rev();
    for (side, stride) in sides {
        if *side != 1 && *stride != expected {
            return Form::Strided(tensor.strides.clone());
        }
        expected = expected.saturating_mul(*side as u64);
    }
    Form::Dense
}

fn shorter(storage: &Storage, needed: Option<u64>, there: u64) -> Error {
    let needed = needed.map_or("more than any file".to_owned(), |needed| needed.to_string());
    broken(format!(
        "its storage `{}` should have {needed} bytes, there are {there}",
        storage.key
    ))
    .hint("incomplete download?")
}
