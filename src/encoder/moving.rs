//! AN ENCODER + A DEVICE → THE SAME ENCODER there.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{CpuStorage, Device, Storage, Tensor, TensorId};
use half::slice::HalfFloatSliceExt as _;
use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::{Kernels, Prepared, placed};
use crate::uploads::Uploads;
use crate::weights::moved_quantized;

use super::ClipText;
use super::layer::{Layer, Linear, Norm, Weight};
use super::model::settle;

/// Bytes from which a tensor goes a device's own way.
const SENT: usize = 1 << 20;

/// Bytes that a thread copies at once.
const COPIED: usize = 1 << 18;

/// Tensors on their way to one device. What several encoders share is moved once, and shared again.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    device: &'a Device,
    uploads: Option<Arc<dyn Uploads>>,
    done: HashMap<TensorId, Tensor>,
}

impl Move<'_> {
    /// `kernels` are the device's.
    pub(crate) fn to<'a>(device: &'a Device, kernels: &dyn Kernels) -> Move<'a> {
        Move {
            device,
            uploads: kernels.uploads(),
            done: HashMap::new(),
        }
    }

    fn tensor(&mut self, tensor: &mut Tensor) -> Result<()> {
        if let Some(there) = self.done.get(&tensor.id()) {
            *tensor = there.clone();
            return Ok(());
        }
        let sent = match &self.uploads {
            Some(uploads) => sent(tensor, &**uploads)?,
            None => None,
        };
        let there = match sent {
            Some(there) => there,
            None => placed(alone(tensor)?.to_device(self.device)?)?,
        };
        self.done.insert(tensor.id(), there.clone());
        *tensor = there;
        Ok(())
    }

    fn weight(&mut self, weight: &mut Weight) -> Result<()> {
        match weight {
            Weight::Dense(tensor) => self.tensor(tensor),
            Weight::Quantized(parts) => {
                if parts
                    .iter()
                    .all(|part| part.device().same_device(self.device))
                {
                    return Ok(());
                }
                let there = parts.iter().map(|part| moved_quantized(part, self.device));
                *parts = there.collect::<Result<_>>()?;
                Ok(())
            }
        }
    }

    fn norm(&mut self, norm: &mut Norm) -> Result<()> {
        self.tensor(&mut norm.weight)?;
        self.tensor(&mut norm.bias)
    }

    fn linear(&mut self, linear: &mut Linear) -> Result<()> {
        self.weight(&mut linear.weight)?;
        self.tensor(&mut linear.bias)
    }

    fn layer(&mut self, layer: &mut Layer) -> Result<()> {
        self.norm(&mut layer.norm1)?;
        self.linear(&mut layer.query_key_value)?;
        self.linear(&mut layer.out)?;
        self.norm(&mut layer.norm2)?;
        self.linear(&mut layer.up)?;
        self.linear(&mut layer.down)
    }
}

impl ClipText {
    /// The encoder on another device, with kernels for it; this one stays as it is. Tensors that are
    /// there already are shared.
    pub fn to_device(&self, device: &Device, kernels: Arc<dyn Kernels>) -> Result<ClipText> {
        self.moved(&mut Move::to(device, &*kernels), kernels)
    }

    /// The same as part of a move of several encoders.
    pub(crate) fn moved(&self, go: &mut Move<'_>, kernels: Arc<dyn Kernels>) -> Result<ClipText> {
        let mut there = self.clone();
        go.tensor(&mut there.token_embedding)?;
        go.tensor(&mut there.position_embedding)?;
        for layer in &mut there.layers {
            go.layer(layer)?;
        }
        go.norm(&mut there.final_norm)?;
        if let Some(projection) = &mut there.projection {
            go.tensor(projection)?;
        }
        there.kernels = kernels;
        there.prepared = Prepared::default();
        settle(self.device())?; // what the old device is still copying from
        settle(go.device)?;
        Ok(there)
    }
}

/// A large tensor of this machine's memory on the device's own way there; `None` for others.
fn sent(tensor: &Tensor, uploads: &dyn Uploads) -> Result<Option<Tensor>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Some((start, end)), Storage::Cpu(storage)) = (layout.contiguous_offsets(), &*storage)
    else {
        return Ok(None);
    };
    let values = start..end;
    let bytes: &[u8] = match storage {
        CpuStorage::F32(all) => bytemuck::cast_slice(&all[values]),
        CpuStorage::F16(all) => bytemuck::cast_slice(all[values].reinterpret_cast()),
        CpuStorage::BF16(all) => bytemuck::cast_slice(all[values].reinterpret_cast()),
        _ => return Ok(None),
    };
    if bytes.len() < SENT {
        return Ok(None);
    }
    let (dtype, size) = (tensor.dtype(), tensor.dtype().size_in_bytes());
    let there = uploads.upload(dtype, tensor.elem_count(), &mut |first, room| {
        let from = &bytes[first * size..][..room.len()];
        let both = room.par_chunks_mut(COPIED).zip(from.par_chunks(COPIED));
        both.for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    })?;
    Ok(Some(there.reshape(tensor.shape())?))
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
    use crate::uploads::Fill;

    /// To the CPU, in parts of so many values.
    #[derive(Debug)]
    struct InParts(usize);

    impl Uploads for InParts {
        fn upload(&self, dtype: DType, n_values: usize, fill: &mut Fill<'_>) -> Result<Tensor> {
            let size = dtype.size_in_bytes();
            let mut bytes = vec![0; n_values * size];
            for (number, room) in bytes.chunks_mut(self.0 * size).enumerate() {
                fill(number * self.0, room)?;
            }
            Ok(Tensor::from_raw_buffer(
                &bytes,
                dtype,
                &[n_values],
                &Device::Cpu,
            )?)
        }
    }

    #[test]
    fn a_large_tensor_goes_the_devices_own_way() {
        let whole = Tensor::rand(-1f32, 1.0, (1025, 1024), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let whole = whole.to_dtype(dtype).unwrap();
            // Parts that end inside of what a thread copies, and that hold several of those.
            for parts in [100_001, 900_000, 2_000_000] {
                let part = whole.narrow(0, 1, 1024).unwrap();
                let there = sent(&part, &InParts(parts)).unwrap().unwrap();
                assert_eq!((there.dims(), there.dtype()), (part.dims(), dtype));
                let values = |tensor: &Tensor| {
                    let wide = tensor.to_dtype(DType::F32).unwrap();
                    wide.flatten_all().unwrap().to_vec1::<f32>().unwrap()
                };
                assert!(values(&there) == values(&part), "{dtype:?} {parts}");
            }
            let turned = whole.t().unwrap();
            assert!(sent(&turned, &InParts(1000)).unwrap().is_none());
            let small = whole.narrow(0, 0, 3).unwrap();
            assert!(sent(&small, &InParts(1000)).unwrap().is_none());
        }
    }

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
