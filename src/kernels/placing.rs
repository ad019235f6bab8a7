//! Where matrices begin in memory: the CPU's matrix unit reads those in bf16 where they lie, and a fifth
//! faster from the start of a cache line.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use half::bf16;

use crate::error::Result;
use crate::pages;

/// A matrix where it is read fastest: itself if that makes no difference, else a copy.
pub(crate) fn placed(matrix: Tensor) -> Result<Tensor> {
    let copy = {
        let (storage, layout) = matrix.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::BF16(all)), Some((start, end))) => {
                on_a_line(&all[start..end])
            }
            _ => None,
        }
    };
    let Some((room, skipped)) = copy else {
        return Ok(matrix);
    };
    let length = room.len();
    let room = Tensor::from_vec(room, length, &Device::Cpu)?;
    let values = room.narrow(0, skipped, matrix.elem_count())?;
    Ok(values.reshape(matrix.shape())?)
}

/// A copy that begins on a cache line, if they do not.
fn on_a_line(values: &[bf16]) -> Option<(Vec<bf16>, usize)> {
    if values.as_ptr().addr().is_multiple_of(pages::LINE) {
        return None;
    }
    let (mut room, skipped) = pages::room::<bf16>(values.len());
    room[skipped..skipped + values.len()].copy_from_slice(values);
    Some((room, skipped))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn a_matrix_lies_on_a_cache_line_and_keeps_its_values() {
        let all = Tensor::arange(0f32, 4099.0, &Device::Cpu).unwrap();
        let all = all.to_dtype(DType::BF16).unwrap();
        for first in 0..3 {
            let matrix = all
                .narrow(0, first, 4096)
                .unwrap()
                .reshape((64, 64))
                .unwrap();
            let lies = placed(matrix.clone()).unwrap();
            assert!(begins(&lies).is_multiple_of(pages::LINE));
            assert_eq!(lies.dims(), [64, 64]);
            let values = |tensor: &Tensor| tensor.to_vec2::<bf16>().unwrap();
            assert_eq!(values(&lies), values(&matrix));
            // What lies there already is not copied again.
            assert_eq!(begins(&placed(lies.clone()).unwrap()), begins(&lies));
        }
    }

    #[test]
    fn other_types_stay_where_they_are() {
        let all = Tensor::zeros(65, DType::F32, &Device::Cpu).unwrap();
        let odd = all.narrow(0, 1, 64).unwrap();
        assert_eq!(placed(odd.clone()).unwrap().id(), odd.id());
    }

    fn begins(tensor: &Tensor) -> usize {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(CpuStorage::BF16(all)) = &*storage else {
            panic!("not bf16 on the CPU");
        };
        all[layout.start_offset()..].as_ptr().addr()
    }
}
