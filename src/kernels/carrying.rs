//! TENSORS TO A DEVICE AND BACK, large ones by the device's own way.

use bytemuck::{AnyBitPattern, NoUninit};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, WithDType};
use half::slice::HalfFloatSliceExt as _;
use half::vec::HalfBitsVecExt as _;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::Result;
use crate::pages;
use crate::transfers::{IN_PARTS, Transfers};

/// Bytes that a thread copies at once.
const COPIED: usize = 1 << 18;

/// A large tensor on the other device, of which one is the CPU and the other has this way of its own.
/// `None` for others, which go candle's way.
pub(crate) fn carried(tensor: &Tensor, to: &Device, way: &dyn Transfers) -> Result<Option<Tensor>> {
    let n_bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
    if n_bytes < IN_PARTS || !tensor.is_contiguous() {
        return Ok(None);
    }
    let there = match (tensor.device().is_cpu(), to.is_cpu()) {
        (true, false) => sent(tensor, way)?,
        (false, true) => fetched(tensor, way)?,
        _ => None,
    };
    Ok(there
        .map(|there| there.reshape(tensor.shape()))
        .transpose()?)
}

fn sent(tensor: &Tensor, way: &dyn Transfers) -> Result<Option<Tensor>> {
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
    let (dtype, size) = (tensor.dtype(), tensor.dtype().size_in_bytes());
    let there = way.upload(dtype, tensor.elem_count(), &mut |first, room| {
        copy(&bytes[first * size..][..room.len()], room);
        Ok(())
    })?;
    Ok(Some(there))
}

fn fetched(tensor: &Tensor, way: &dyn Transfers) -> Result<Option<Tensor>> {
    let there = match tensor.dtype() {
        DType::F32 => fetched_as(tensor, way, |room: Vec<f32>| room),
        DType::F16 => fetched_as(tensor, way, |room: Vec<u16>| room.reinterpret_into::<f16>()),
        DType::BF16 => fetched_as(tensor, way, |room: Vec<u16>| {
            room.reinterpret_into::<bf16>()
        }),
        _ => return Ok(None),
    };
    there.map(Some)
}

/// Into room for such bits, which then are values.
fn fetched_as<T: NoUninit + AnyBitPattern + Default, V: WithDType>(
    tensor: &Tensor,
    way: &dyn Transfers,
    values: impl FnOnce(Vec<T>) -> Vec<V>,
) -> Result<Tensor> {
    let n_values = tensor.elem_count();
    let (mut room, skipped) = pages::room::<T>(n_values);
    fetch(tensor, bytemuck::cast_slice_mut(&mut room[skipped..]), way)?;
    let (length, room) = (room.len(), values(room));
    let all = Tensor::from_vec(room, length, &Device::Cpu)?;
    Ok(all.narrow(0, skipped, n_values)?)
}

/// All values to this machine's memory.
fn fetch(tensor: &Tensor, room: &mut [u8], way: &dyn Transfers) -> Result<()> {
    let size = tensor.dtype().size_in_bytes();
    way.download(tensor, &mut |first, part| {
        copy(part, &mut room[first * size..][..part.len()]);
        Ok(())
    })
}

/// On all of rayon's threads.
fn copy(from: &[u8], to: &mut [u8]) {
    let both = to.par_chunks_mut(COPIED).zip(from.par_chunks(COPIED));
    both.for_each(|(to, from)| to.copy_from_slice(from));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfers::{Fill, Take};

    /// A way from the CPU to itself, in parts of so many values.
    #[derive(Debug)]
    struct InParts(usize);

    impl Transfers for InParts {
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

        fn download(&self, tensor: &Tensor, take: &mut Take<'_>) -> Result<()> {
            let bytes = bytes(tensor);
            let part = self.0 * tensor.dtype().size_in_bytes();
            let mut parts = bytes.chunks(part).enumerate();
            parts.try_for_each(|(number, part)| take(number * self.0, part))
        }
    }

    fn bytes(tensor: &Tensor) -> Vec<u8> {
        let wide = tensor.to_dtype(DType::F32).unwrap();
        let values = wide.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let each = values.into_iter();
        match tensor.dtype() {
            DType::F16 => each
                .flat_map(|value| f16::from_f32(value).to_ne_bytes())
                .collect(),
            DType::BF16 => each
                .flat_map(|value| bf16::from_f32(value).to_ne_bytes())
                .collect(),
            _ => each.flat_map(f32::to_ne_bytes).collect(),
        }
    }

    /// Parts that end inside of what a thread copies, and that hold several of those.
    #[test]
    fn a_large_tensor_comes_and_goes_in_parts() {
        let whole = Tensor::rand(-1f32, 1.0, (1025, 1024), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let whole = whole.to_dtype(dtype).unwrap();
            let part = whole.narrow(0, 1, 1024).unwrap();
            for values in [100_001, 900_000, 2_000_000] {
                let way = InParts(values);
                let there = sent(&part, &way).unwrap().unwrap();
                assert!(bytes(&there) == bytes(&part), "sent, {dtype:?} {values}");
                let here = fetched(&part, &way).unwrap().unwrap();
                assert_eq!(here.dtype(), dtype);
                assert!(bytes(&here) == bytes(&part), "fetched, {dtype:?} {values}");
            }
        }
    }

    #[test]
    fn what_has_no_way_of_its_own_is_left() {
        let here = &Device::Cpu;
        let large = Tensor::zeros((1024, 1024), DType::F32, here).unwrap();
        // Both are this machine's.
        assert!(carried(&large, here, &InParts(1000)).unwrap().is_none());
        let others = Tensor::zeros((1024, 1024), DType::I64, here).unwrap();
        assert!(sent(&others, &InParts(1000)).unwrap().is_none());
        assert!(fetched(&others, &InParts(1000)).unwrap().is_none());
    }
}
