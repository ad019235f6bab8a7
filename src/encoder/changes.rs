//! AN ENCODER + CHANGED TENSORS → ANOTHER ENCODER that shares what was not changed.

use std::cell::OnceCell;

use candle_core::{DType, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Prepared;
use crate::weights::stack;

use super::ClipText;
use super::layer::{Layer, Linear, Norm};
use super::model::settle;
use super::weight::Weight;

/// A tensor of which shape and type are known, and which is made when it is asked for: a matrix in a file or a
/// quantized one is none until then.
pub(crate) struct Shown<'a> {
    dims: Vec<usize>,
    dtype: DType,
    make: &'a dyn Fn() -> Result<Tensor>,
}

impl Shown<'_> {
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub(crate) fn tensor(&self) -> Result<Tensor> {
        (self.make)()
    }
}

/// Given a canonical name and the tensor as it is kept, the tensor to keep instead, if any.
type Change<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<Option<Tensor>>;

/// The same where it need not look at every tensor.
type Glance<'a> = &'a mut dyn FnMut(&str, &Shown<'_>) -> Result<Option<Tensor>>;

impl ClipText {
    /// The encoder with some tensors replaced. `change` is asked once for each tensor, by its
    /// canonical name (see [`TensorSource`](crate::weights::TensorSource)): matrices in the type in
    /// which they were loaded, vectors in f32. What it gives must have the same shape and type.
    /// Everything else is shared with this encoder, which stays as it is.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let clip = text.encoders().next().unwrap();
    /// let mut n_tensors = 0;
    /// let _same = clip.with_changes(&mut |_, _| {
    ///     n_tensors += 1;
    ///     Ok(None)
    /// })?;
    /// assert_eq!(n_tensors, 2 + 3 * 16 + 2 + 1);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn with_changes(&self, change: Change<'_>) -> Result<ClipText> {
        self.with_glances(&mut |name, shown| change(name, &shown.tensor()?))
    }

    /// The same where `change` need not look at every tensor.
    pub(crate) fn with_glances(&self, change: Glance<'_>) -> Result<ClipText> {
        let mut changed = self.clone();
        changed.prepared = Prepared::default();
        let embeddings = ["token_embedding", "position_embedding"].map(str::to_owned);
        replace_matrix(&mut changed.token_embedding, &embeddings[..1], change)?;
        replace(&mut changed.position_embedding, &embeddings[1..], change)?;
        for (index, layer) in changed.layers.iter_mut().enumerate() {
            layer.change(index, change)?;
        }
        changed.final_norm.change("final_ln", change)?;
        if let Some(projection) = &mut changed.projection {
            replace(projection, &["projection".to_owned()], change)?;
        }
        settle(self.device())?;
        Ok(changed)
    }
}

impl Layer {
    fn change(&mut self, index: usize, change: Glance<'_>) -> Result<()> {
        let name = |part: &str| format!("layers.{index}.{part}");
        self.norm1.change(&name("ln1"), change)?;
        let stacked = ["q", "k", "v"].map(name);
        self.query_key_value.change(&stacked, change)?;
        self.out.change(&[name("out")], change)?;
        self.norm2.change(&name("ln2"), change)?;
        self.up.change(&[name("fc1")], change)?;
        self.down.change(&[name("fc2")], change)
    }
}

impl Norm {
    fn change(&mut self, name: &str, change: Glance<'_>) -> Result<()> {
        replace(&mut self.weight, &[format!("{name}.weight")], change)?;
        replace(&mut self.bias, &[format!("{name}.bias")], change)
    }
}

impl Linear {
    /// Those of several names lie below each other.
    fn change(&mut self, names: &[String], change: Glance<'_>) -> Result<()> {
        let leaf = |leaf: &str| -> Vec<String> {
            let names = names.iter();
            names.map(|name| format!("{name}.{leaf}")).collect()
        };
        replace_matrix(&mut self.weight, &leaf("weight"), change)?;
        replace(&mut self.bias, &leaf("bias"), change)
    }
}

fn replace(tensor: &mut Tensor, names: &[String], change: Glance<'_>) -> Result<()> {
    let whole = || Ok(tensor.clone());
    let kind = (tensor.dims().to_vec(), tensor.dtype());
    if let Some(changed) = changed(names, kind, &whole, change)? {
        *tensor = changed;
    }
    Ok(())
}

/// A matrix that is no tensor becomes one if it is asked for, once for all its parts.
fn replace_matrix(matrix: &mut Weight, names: &[String], change: Glance<'_>) -> Result<()> {
    let made = OnceCell::new();
    let whole = || {
        if let Some(made) = made.get() {
            return Ok(Tensor::clone(made));
        }
        let dense = matrix.dense()?;
        Ok(made.get_or_init(|| dense).clone())
    };
    let kind = (matrix.dims()?.to_vec(), matrix.dtype());
    if let Some(changed) = changed(names, kind, &whole, change)? {
        *matrix = Weight::of(changed)?;
    }
    Ok(())
}

/// The parts below each other, of which there is one for each name, if any of them is replaced.
fn changed(
    names: &[String],
    (mut dims, dtype): (Vec<usize>, DType),
    whole: &dyn Fn() -> Result<Tensor>,
    change: Glance<'_>,
) -> Result<Option<Tensor>> {
    dims[0] /= names.len();
    let rows = dims[0];
    let part = |place: usize| match names {
        [_] => whole(),
        _ => Ok(whole()?.narrow(0, place * rows, rows)?),
    };
    let mut parts = Vec::with_capacity(names.len());
    for (place, name) in names.iter().enumerate() {
        let make = &|| part(place);
        let dims = dims.clone();
        parts.push(asked(name, &Shown { dims, dtype, make }, change)?);
    }
    if parts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let parts = parts.into_iter().enumerate();
    let parts = parts.map(|(place, changed)| changed.map_or_else(|| part(place), Ok));
    stack(parts.collect::<Result<_>>()?).map(Some)
}

/// What is to be kept instead, if it fits.
fn asked(name: &str, was: &Shown<'_>, change: Glance<'_>) -> Result<Option<Tensor>> {
    let Some(changed) = change(name, was)? else {
        return Ok(None);
    };
    if changed.dims() != was.dims || changed.dtype() != was.dtype {
        let (kept, given) = (was.dtype, changed.dtype());
        let (was, is) = (&was.dims, changed.dims());
        let message = format!("{kept:?} {was:?} was to be changed, {given:?} {is:?} was given");
        return Err(Error::new(ErrorKind::TensorShape, message).at_tensor(name));
    }
    Ok(Some(changed))
}
