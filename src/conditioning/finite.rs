//! TENSOR → WHERE IT IS NOT FINITE. No U-Net makes anything of NaN or infinity.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::Conditioning;
use crate::error::{Error, ErrorKind, Result};

/// Values that are looked at together: the first that is not finite is searched for in one such part only.
const PART: usize = 1024;

/// The first value that is not finite, row by row. Whole numbers have none.
pub(crate) fn first_bad(tensor: &Tensor) -> Result<Option<usize>> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Ok(None);
    };
    let start = layout.start_offset();
    let meant = start..start + layout.shape().elem_count();
    Ok(match storage {
        CpuStorage::F64(values) => first(&values[meant], |value| !value.is_finite()),
        CpuStorage::F32(values) => first(&values[meant], |value| !value.is_finite()),
        CpuStorage::F16(values) => first(&values[meant], |value| !value.is_finite()),
        CpuStorage::BF16(values) => first(&values[meant], |value| !value.is_finite()),
        _ => None,
    })
}

fn first<T: Copy>(values: &[T], is_bad: impl Fn(T) -> bool) -> Option<usize> {
    values.chunks(PART).enumerate().find_map(|(part, values)| {
        // Without a way out before the end, so that many are looked at by one instruction.
        let any = values.iter().fold(false, |any, value| any | is_bad(*value));
        let place = any.then(|| values.iter().position(|value| is_bad(*value)));
        place.flatten().map(|place| part * PART + place)
    })
}

/// A value of a tensor, by its place row by row.
fn value(tensor: &Tensor, place: usize) -> Result<f64> {
    let one = tensor.flatten_all()?.get(place)?;
    Ok(one.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// Refuses a tensor with a value that is not finite.
pub(crate) fn expect_finite(name: &str, tensor: &Tensor) -> Result<()> {
    let Some(place) = first_bad(tensor)? else {
        return Ok(());
    };
    let (value, dtype) = (value(tensor, place)?, tensor.dtype().as_str());
    let message = format!("value {place} is {value} in {dtype}, of which a U-Net makes nothing");
    let hint =
        "strengths, weights of blends and LoRAs that are extreme or sum to 0 give such values";
    Err(Error::new(ErrorKind::TensorValue, message)
        .at_tensor(name)
        .hint(hint))
}

/// The tensor in another type. On a CPU a finite value that becomes infinite is refused; elsewhere nobody
/// waits to look.
pub(crate) fn cast(name: &str, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let cast = tensor.to_dtype(dtype)?;
    let is_wider =
        |from| from == dtype || matches!((from, dtype), (_, DType::F64) | (DType::F16, _));
    if is_wider(tensor.dtype()) || !tensor.device().is_cpu() || first_bad(&cast)?.is_none() {
        return Ok(cast);
    }
    let all = |tensor: &Tensor| tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    let both = all(tensor)?.into_iter().zip(all(&cast)?);
    let mut lost = both.enumerate();
    match lost.find(|(_, (from, to))| from.is_finite() && !to.is_finite()) {
        Some((place, (value, _))) => Err(too_large(name, (place, value), dtype)),
        None => Ok(cast),
    }
}

fn too_large(name: &str, (place, value): (usize, f64), dtype: DType) -> Error {
    let message = format!(
        "value {place} is {value}, which is infinite in {}",
        dtype.as_str()
    );
    let error = Error::new(ErrorKind::TensorValue, message).at_tensor(name);
    error.hint(match dtype {
        DType::F16 => "take bf16 or f32; f16 ends at 65504",
        _ => "take a type of a larger range",
    })
}

impl Conditioning {
    /// Whether all values of the hidden states, the pooled vector and the size numbers are finite. Extreme
    /// strengths, blends whose weights sum to 0 and extreme `LoRA`s give NaN and infinities in the
    /// reference programs and so here; a [note](Self::notes) tells of them where the values are on the
    /// CPU. On another device this waits for them and looks.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, Profile, Request, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// assert!(text.encode("a cat")?.is_finite()?);
    /// let nothing = Request::new(r#"("cat", "dog").blend(1, -1)"#).profile(Profile::Compel);
    /// assert!(!text.encode(nothing)?.is_finite()?);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn is_finite(&self) -> Result<bool> {
        let more = [&self.pooled, &self.time_ids].into_iter().flatten();
        for tensor in std::iter::once(&self.context).chain(more) {
            if first_bad(tensor)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_first_is_found_wherever_it_is() {
        for place in [0, 1, PART - 1, PART, 3 * PART] {
            let mut values = vec![0.5_f32; 3 * PART + 1];
            values[place] = f32::NAN;
            *values.last_mut().unwrap() = f32::INFINITY;
            for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
                let tensor = tensor(&values).to_dtype(dtype).unwrap();
                assert_eq!(first_bad(&tensor).unwrap(), Some(place.min(3 * PART)));
                let part = tensor.narrow(0, 1, 3 * PART - 1).unwrap();
                let inside = (1..3 * PART).contains(&place);
                assert_eq!(first_bad(&part).unwrap(), inside.then(|| place - 1));
            }
        }
    }

    #[test]
    fn what_a_type_loses_is_told_from_what_was_lost_before() {
        let lost = tensor(&[f32::NAN, 1.0, -1e6]);
        let error = cast("context", &lost, DType::F16).unwrap_err().to_string();
        assert!(error.contains("`context`: value 2 is -1000000"), "{error}");
        assert!(error.contains("infinite in f16"), "{error}");
        assert!(cast("context", &lost, DType::BF16).is_ok());
        let before = tensor(&[f32::NAN, 1.0, f32::INFINITY]);
        assert!(cast("context", &before, DType::F16).is_ok());
        assert!(expect_finite("context", &before).is_err());
    }
}
