//! The states of a forward → what the readouts ask for.

use candle_core::Tensor;

use crate::error::{Error, ErrorKind, Result};
use crate::tokens::CONTEXT;

use super::window::{self, Window};
use super::{ClipText, Pooled, Readout};

impl ClipText {
    /// Each window's state, in the order of the windows: `[windows, 77, width]`.
    pub(super) fn read_hidden(
        &self,
        states: &[(usize, Tensor)],
        readouts: &[Readout],
    ) -> Result<Tensor> {
        let mut kinds: Vec<(usize, bool)> = Vec::new();
        let kind_of = |readout: &Readout| (readout.layer, readout.final_norm);
        for kind in readouts.iter().map(kind_of) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let all = kinds.iter().map(|kind| self.read_state(states, *kind));
        let all = all.collect::<Result<Vec<_>>>()?;
        if let [only] = all.as_slice() {
            return Ok(only.clone());
        }
        let rows = readouts.iter().enumerate().map(|(window, readout)| {
            let kind = kind_of(readout);
            let place = kinds.iter().position(|other| *other == kind);
            let place = place.expect("listed above");
            Ok(all[place].narrow(0, window, 1)?)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// All windows' state after a layer, through the final norm where that is wanted.
    fn read_state(
        &self,
        states: &[(usize, Tensor)],
        (layer, final_norm): (usize, bool),
    ) -> Result<Tensor> {
        let state = kept(states, layer);
        if final_norm {
            self.final_norm.forward(state, &*self.kernels)
        } else {
            Ok(state.clone())
        }
    }

    /// The end token's row of the full tower, through the final norm, and projected.
    pub(super) fn read_pooled(
        &self,
        states: &[(usize, Tensor)],
        windows: &[Window<'_>],
        readouts: &[Readout],
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wants = |kind| readouts.iter().any(|readout| readout.pooled == kind);
        let (normed, projected) = (wants(Pooled::Normed), wants(Pooled::Projected));
        if !normed && !projected {
            return Ok((None, None));
        }
        let rows = end_rows(states, windows, readouts)?;
        let rows = self.final_norm.forward(&rows, &*self.kernels)?;
        let product = projected.then(|| self.project(&rows)).transpose()?;
        Ok((normed.then_some(rows), product))
    }

    fn project(&self, rows: &Tensor) -> Result<Tensor> {
        let projection = self.projection.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::MissingTensor,
                "the pooled vector needs the text projection",
            )
            .at_tensor("text_projection")
            .hint("this file was saved without it; take the encoder from another file")
        })?;
        self.kernels.linear(rows, projection, None)
    }
}

/// For each window the row that is pooled, `[windows, width]`. Windows that are not pooled give a
/// row of the last state, which nobody reads.
fn end_rows(
    states: &[(usize, Tensor)],
    windows: &[Window<'_>],
    readouts: &[Readout],
) -> Result<Tensor> {
    let last = states.last().map_or(0, |(layer, _)| *layer);
    let layer = |readout: &Readout| match readout.pooled {
        Pooled::Skip => last,
        Pooled::Normed | Pooled::Projected => readout.pooled_layer,
    };
    let layers: Vec<usize> = readouts.iter().map(layer).collect();
    let rows = |layer: usize| end_rows_of(kept(states, layer), windows);
    let first = rows(layers[0])?;
    if layers.iter().all(|layer| *layer == layers[0]) {
        return Ok(first);
    }
    let each = layers.iter().enumerate();
    let each = each.map(|(window, layer)| Ok(rows(*layer)?.narrow(0, window, 1)?));
    Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
}

/// The rows of the end tokens in one layer's state, `[windows, width]`.
fn end_rows_of(state: &Tensor, windows: &[Window<'_>]) -> Result<Tensor> {
    let ends = windows.iter().map(|window| window.chunk().end());
    let index = ends.enumerate();
    let index = index.map(|(window, end)| window::row_number(window * CONTEXT + end));
    let index = Tensor::new(index.collect::<Result<Vec<_>>>()?, state.device())?;
    Ok(state.flatten_to(1)?.index_select(&index, 0)?)
}

/// The state after a layer.
fn kept(states: &[(usize, Tensor)], layer: usize) -> &Tensor {
    let found = states.iter().find(|(index, _)| *index == layer);
    &found
        .expect("the forward keeps every state that a readout names")
        .1
}
