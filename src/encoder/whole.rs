//! The way through kernels that run an encoder whole: one call for all windows that are read alike.

use candle_core::{DType, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{Batch, PooledRow, ReadOut, WholeEncoder};

use super::window::{self, Window};
use super::{ClipText, Encoded, Pooled, Readout};

impl ClipText {
    /// Windows in one call for each kind of readout; `None` where the kernels cannot.
    pub(super) fn encode_whole(
        &self,
        windows: &[Window<'_>],
        readouts: &[Readout],
    ) -> Result<Option<Encoded>> {
        let mut kinds: Vec<(Readout, Vec<u32>)> = Vec::new();
        for (place, readout) in (0..).zip(readouts) {
            match kinds.iter_mut().find(|(kind, _)| kind == readout) {
                Some((_, places)) => places.push(place),
                None => kinds.push((*readout, vec![place])),
            }
        }
        let mut parts = Vec::with_capacity(kinds.len());
        for (readout, places) in &kinds {
            let Some(read) = self.read_alike(windows, *readout, places)? else {
                return Ok(None);
            };
            parts.push((readout.pooled, read));
        }
        let order: Vec<u32> = kinds.into_iter().flat_map(|(_, places)| places).collect();
        joined(&parts, &order).map(Some)
    }

    fn read_alike(
        &self,
        windows: &[Window<'_>],
        readout: Readout,
        places: &[u32],
    ) -> Result<Option<ReadOut>> {
        let windows = places.iter().map(|place| &windows[*place as usize]);
        let windows: Vec<&Window<'_>> = windows.collect();
        let Some(ends) = window::ends(&windows) else {
            return Ok(None);
        };
        let ids = windows.iter().flat_map(|window| window.chunk().ids());
        let batch = Batch {
            ids: ids.copied().collect(),
            vectors: window::vectors(&windows),
            hidden_keys: window::hidden(&windows),
            ends,
            layer: readout.layer,
            final_norm: readout.final_norm,
            pooled: pooled_row(readout),
        };
        self.kernels
            .encode(&|| self.whole(), &batch, &self.prepared)
    }

    fn whole(&self) -> Option<WholeEncoder<'_>> {
        Some(WholeEncoder {
            tower: self.tower(self.layers.len())?,
            token_embedding: self.token_embedding.tensor()?,
            position_embedding: &self.position_embedding,
            final_norm: self.final_norm.tensors(),
            projection: self.projection.as_ref(),
        })
    }
}

fn pooled_row(readout: Readout) -> Option<PooledRow> {
    match readout.pooled {
        Pooled::Skip => None,
        Pooled::Normed | Pooled::Projected => Some(PooledRow {
            layer: readout.pooled_layer,
            projected: readout.pooled == Pooled::Projected,
        }),
    }
}

/// The parts one after the other, and then in the order of the windows: `order` has the window of each.
fn joined(parts: &[(Pooled, ReadOut)], order: &[u32]) -> Result<Encoded> {
    let counts: Vec<usize> = parts
        .iter()
        .map(|(_, part)| part.hidden.dim(0))
        .collect::<Result<_, _>>()?;
    let all = |of: fn(&ReadOut) -> Option<&Tensor>| {
        let each: Vec<Option<&Tensor>> = parts.iter().map(|(_, part)| of(part)).collect();
        rows(&each, &counts, order)
    };
    let wants = |kind| parts.iter().any(|(pooled, _)| *pooled == kind);
    let normed = wants(Pooled::Normed).then(|| all(|part| part.normed.as_ref()));
    let projected = wants(Pooled::Projected).then(|| all(|part| part.projected.as_ref()));
    let hidden = all(|part| Some(&part.hidden))?;
    Ok(Encoded {
        hidden: hidden.ok_or_else(|| Error::new(ErrorKind::Request, "no windows"))?,
        normed: normed.transpose()?.flatten(),
        projected: projected.transpose()?.flatten(),
    })
}

/// Rows of all parts in the windows' order; zeros, which nobody reads, for a part without them.
fn rows(parts: &[Option<&Tensor>], counts: &[usize], order: &[u32]) -> Result<Option<Tensor>> {
    if let [only] = parts {
        return Ok(only.cloned());
    }
    let Some(some) = parts.iter().flatten().next() else {
        return Ok(None);
    };
    let mut all = Vec::with_capacity(parts.len());
    for (part, count) in parts.iter().zip(counts) {
        let mut shape = some.dims().to_vec();
        shape[0] = *count;
        all.push(match part {
            Some(part) => (*part).clone(),
            None => Tensor::zeros(shape, DType::F32, some.device())?,
        });
    }
    let mut back = vec![0_u32; order.len()];
    for (row, window) in (0..).zip(order) {
        back[*window as usize] = row;
    }
    let back = Tensor::new(back, some.device())?;
    Ok(Some(Tensor::cat(&all, 0)?.index_select(&back, 0)?))
}
