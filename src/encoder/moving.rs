//! AN ENCODER + A DEVICE → THE SAME ENCODER there.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{CpuStorage, Device, Storage, Tensor, TensorId};

use crate::error::Result;
use crate::kernels::{Kernels, Prepared, carried, placed};
use crate::transfers::Transfers;
use crate::weights::moved_quantized;

use super::ClipText;
use super::layer::{Layer, Linear, Norm};
use super::model::settle;
use super::weight::Weight;

/// Tensors on their way to one device. What several encoders share is moved once, and shared again.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    device: &'a Device,
    /// That of the device that is not the CPU.
    way: Option<Arc<dyn Transfers>>,
    done: HashMap<TensorId, Tensor>,
    /// Matrices that are no tensors: those that were moved, which stay until all are, and what came of them.
    made: HashMap<usize, (Weight, Weight)>,
}

impl Move<'_> {
    pub(crate) fn to(device: &Device) -> Move<'_> {
        Move {
            device,
            way: None,
            done: HashMap::new(),
            made: HashMap::new(),
        }
    }

    /// Where they go.
    pub(crate) fn device(&self) -> &Device {
        self.device
    }

    fn tensor(&mut self, tensor: &mut Tensor) -> Result<()> {
        if let Some(there) = self.done.get(&tensor.id()) {
            *tensor = there.clone();
            return Ok(());
        }
        let there = self.there(tensor)?;
        self.done.insert(tensor.id(), there.clone());
        *tensor = there;
        Ok(())
    }

    fn there(&self, tensor: &Tensor) -> Result<Tensor> {
        let carried = match &self.way {
            Some(way) => carried(tensor, self.device, &**way)?,
            None => None,
        };
        match carried {
            Some(there) => Ok(there),
            None => placed(alone(tensor)?.to_device(self.device)?),
        }
    }

    fn weight(&mut self, weight: &mut Weight) -> Result<()> {
        let place = match weight {
            Weight::Dense(tensor) => return self.tensor(tensor),
            Weight::Quantized(parts) => parts.as_ptr().addr(),
            Weight::Mapped(parts, _) => parts.as_ptr().addr(),
        };
        if let Some((_, there)) = self.made.get(&place) {
            *weight = there.clone();
            return Ok(());
        }
        let there = self.no_tensor(weight)?;
        let here = std::mem::replace(weight, there.clone());
        self.made.insert(place, (here, there));
        Ok(())
    }

    fn no_tensor(&self, weight: &Weight) -> Result<Weight> {
        match weight {
            Weight::Quantized(parts) => {
                let is_there = |part: &QTensor| part.device().same_device(self.device);
                if parts.iter().all(is_there) {
                    return Ok(weight.clone());
                }
                let there = parts.iter().map(|part| moved_quantized(part, self.device));
                Ok(Weight::Quantized(there.collect::<Result<_>>()?))
            }
            Weight::Mapped(..) if self.device.is_cpu() => Ok(weight.clone()),
            Weight::Mapped(..) | Weight::Dense(_) => {
                self.there(&weight.dense()?).map(Weight::Dense)
            }
        }
    }

    fn place(&mut self, place: Place<'_>) -> Result<()> {
        match place {
            Place::Weight(weight) => self.weight(weight),
            Place::Tensor(tensor) => self.tensor(tensor),
        }
    }

    /// What an encoder has was moved already, and lies where `there` has it.
    pub(crate) fn know(&mut self, here: &ClipText, there: &ClipText) {
        let (mut here, mut there) = (here.clone(), there.clone());
        for both in here.places().into_iter().zip(there.places()) {
            match both {
                (Place::Weight(here), Place::Weight(there)) => self.know_weight(here, there),
                (Place::Tensor(here), Place::Tensor(there)) => {
                    self.done.insert(here.id(), there.clone());
                }
                _ => {} // both have the same places
            }
        }
    }

    fn know_weight(&mut self, here: &Weight, there: &Weight) {
        let place = match here {
            Weight::Dense(here) => {
                if let Weight::Dense(there) = there {
                    self.done.insert(here.id(), there.clone());
                }
                return;
            }
            Weight::Quantized(parts) => parts.as_ptr().addr(),
            Weight::Mapped(parts, _) => parts.as_ptr().addr(),
        };
        self.made.insert(place, (here.clone(), there.clone()));
    }
}

/// What of an encoder is moved.
enum Place<'a> {
    Weight(&'a mut Weight),
    Tensor(&'a mut Tensor),
}

impl Norm {
    fn places(&mut self) -> [Place<'_>; 2] {
        [&mut self.weight, &mut self.bias].map(Place::Tensor)
    }
}

impl Linear {
    fn places(&mut self) -> [Place<'_>; 2] {
        [
            Place::Weight(&mut self.weight),
            Place::Tensor(&mut self.bias),
        ]
    }
}

impl Layer {
    fn places(&mut self) -> impl Iterator<Item = Place<'_>> {
        let all = [
            self.norm1.places(),
            self.query_key_value.places(),
            self.out.places(),
            self.norm2.places(),
            self.up.places(),
            self.down.places(),
        ];
        all.into_iter().flatten()
    }
}

impl ClipText {
    /// The encoder on another device, with kernels for it; this one stays as it is. Tensors that are
    /// there already are shared.
    pub fn to_device(&self, device: &Device, kernels: Arc<dyn Kernels>) -> Result<ClipText> {
        self.moved(&mut Move::to(device), kernels)
    }

    /// The same as part of a move of several encoders.
    pub(crate) fn moved(&self, go: &mut Move<'_>, kernels: Arc<dyn Kernels>) -> Result<ClipText> {
        // The one before is held until then, so that all encoders share it.
        go.way = self.kernels.transfers().or_else(|| kernels.transfers());
        let mut there = self.clone();
        for place in there.places() {
            go.place(place)?;
        }
        there.kernels = kernels;
        there.prepared = Prepared::default();
        settle(self.device())?; // what the old device is still copying from
        settle(go.device)?;
        Ok(there)
    }

    /// The encoder where `now` is, which is `then` after a move: what it shares with the one it shares with
    /// the other.
    pub(crate) fn after(&self, then: &ClipText, now: &ClipText) -> Result<ClipText> {
        let mut go = Move::to(now.device());
        go.know(then, now);
        self.moved(&mut go, Arc::clone(&now.kernels))
    }

    /// All tensors, in an order that depends on the dimensions alone.
    fn places(&mut self) -> Vec<Place<'_>> {
        let embeddings = [
            Place::Weight(&mut self.token_embedding),
            Place::Tensor(&mut self.position_embedding),
        ];
        let layers = self.layers.iter_mut().flat_map(Layer::places);
        let projection = self.projection.as_mut().map(Place::Tensor);
        let all = embeddings.into_iter().chain(layers);
        all.chain(self.final_norm.places())
            .chain(projection)
            .collect()
    }
}

/// A tensor that shares its memory with others, in memory of its own: all of a memory is moved.
fn alone(tensor: &Tensor) -> Result<Tensor> {
    let shared = {
        let (storage, layout) = tensor.storage_and_layout();
        let n_values = layout.shape().elem_count();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => values.len() > n_values,
            Storage::Cpu(CpuStorage::F16(values)) => values.len() > n_values,
            Storage::Cpu(CpuStorage::BF16(values)) => values.len() > n_values,
            Storage::Cpu(_) | Storage::Cuda(_) | Storage::Metal(_) => false,
        }
    };
    if shared {
        return Ok(tensor.force_contiguous()?);
    }
    Ok(tensor.clone())
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn only_what_a_tensor_shows_is_moved() {
        let whole = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let whole = whole.to_dtype(dtype).unwrap().reshape((4, 3)).unwrap();
            let same = alone(&whole).unwrap();
            assert_eq!(same.id(), whole.id());
            for start in [0, 1] {
                let part = whole.narrow(0, start, 2).unwrap();
                let own = alone(&part).unwrap();
                assert_ne!(own.id(), part.id());
                assert_eq!(own.layout().start_offset(), 0);
                let values = |tensor: &Tensor| {
                    let wide = tensor.to_dtype(DType::F32).unwrap();
                    wide.to_vec2::<f32>().unwrap()
                };
                assert_eq!(values(&own), values(&part));
            }
        }
    }
}
