//! AN ENCODER + CHANGED TENSORS → ANOTHER ENCODER that shares what was not changed.

use candle_core::Tensor;

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::Prepared;

use super::ClipText;
use super::layer::{Layer, Linear, Norm, Weight};
use super::model::settle;

/// Given a canonical name and the tensor as it is kept, the tensor to keep instead, if any.
type Change<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<Option<Tensor>>;

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
        let mut changed = self.clone();
        changed.prepared = Prepared::default();
        replace(&mut changed.token_embedding, "token_embedding", change)?;
        replace(
            &mut changed.position_embedding,
            "position_embedding",
            change,
        )?;
        for (index, layer) in changed.layers.iter_mut().enumerate() {
            layer.change(index, change)?;
        }
        changed.final_norm.change("final_ln", change)?;
        if let Some(projection) = &mut changed.projection {
            replace(projection, "projection", change)?;
        }
        settle(self.device())?;
        Ok(changed)
    }
}

impl Layer {
    fn change(&mut self, index: usize, change: Change<'_>) -> Result<()> {
        let name = |part: &str| format!("layers.{index}.{part}");
        self.norm1.change(&name("ln1"), change)?;
        let stacked = ["q", "k", "v"].map(name);
        self.query_key_value.change_stacked(&stacked, change)?;
        self.out.change(&name("out"), change)?;
        self.norm2.change(&name("ln2"), change)?;
        self.up.change(&name("fc1"), change)?;
        self.down.change(&name("fc2"), change)
    }
}

impl Norm {
    fn change(&mut self, name: &str, change: Change<'_>) -> Result<()> {
        replace(&mut self.weight, &format!("{name}.weight"), change)?;
        replace(&mut self.bias, &format!("{name}.bias"), change)
    }
}

impl Linear {
    fn change(&mut self, name: &str, change: Change<'_>) -> Result<()> {
        let mut weight = self.weight.dense()?;
        if replace_if(&mut weight, &format!("{name}.weight"), change)? {
            self.weight = Weight::of(weight)?;
        }
        replace(&mut self.bias, &format!("{name}.bias"), change)
    }

    /// Query, key and value lie below each other.
    fn change_stacked(&mut self, names: &[String; 3], change: Change<'_>) -> Result<()> {
        let mut weight = self.weight.dense()?;
        if replace_parts(&mut weight, names, "weight", change)? {
            self.weight = Weight::of(weight)?;
        }
        replace_parts(&mut self.bias, names, "bias", change).map(|_| ())
    }
}

/// True if any of the parts below each other was replaced.
fn replace_parts(
    tensor: &mut Tensor,
    names: &[String; 3],
    leaf: &str,
    change: Change<'_>,
) -> Result<bool> {
    let rows = tensor.dim(0)? / names.len();
    let mut parts = Vec::with_capacity(names.len());
    let mut any = false;
    for (place, name) in names.iter().enumerate() {
        let mut part = tensor.narrow(0, place * rows, rows)?;
        any |= replace_if(&mut part, &format!("{name}.{leaf}"), change)?;
        parts.push(part);
    }
    if any {
        *tensor = Tensor::cat(&parts, 0)?;
    }
    Ok(any)
}

fn replace(tensor: &mut Tensor, name: &str, change: Change<'_>) -> Result<()> {
    replace_if(tensor, name, change).map(|_| ())
}

/// True if it was replaced.
fn replace_if(tensor: &mut Tensor, name: &str, change: Change<'_>) -> Result<bool> {
    let Some(changed) = change(name, tensor)? else {
        return Ok(false);
    };
    if changed.dims() != tensor.dims() || changed.dtype() != tensor.dtype() {
        let (was, is) = (tensor.dims(), changed.dims());
        let (kept, given) = (tensor.dtype(), changed.dtype());
        let message = format!("{kept:?} {was:?} was to be changed, {given:?} {is:?} was given");
        return Err(Error::new(ErrorKind::TensorShape, message).at_tensor(name));
    }
    *tensor = changed;
    Ok(true)
}
