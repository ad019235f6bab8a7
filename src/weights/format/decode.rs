//! Stored bytes → values, with a look for what cannot be weights.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

use super::stored::Stored;
use crate::error::{Error, ErrorKind, Result};

/// A tensor of `shape` from its bytes, converted to `want` on `device`. Types of 8 bits are
/// expanded, and multiplied by `scale` (one value, or one for each row).
pub(crate) fn tensor(
    bytes: &[u8],
    stored: Stored,
    shape: &[usize],
    scale: Option<&[f32]>,
    want: DType,
    device: &Device,
) -> Result<Tensor> {
    let Some(ours) = candles(stored) else {
        let mut values = numbers(bytes, stored)?;
        multiply(&mut values, scale);
        if let Some(index) = beyond(&values, want) {
            return Err(too_large(index, want));
        }
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        return Ok(tensor.to_dtype(want)?.to_device(device)?);
    };
    let tensor = Tensor::from_raw_buffer(bytes, ours, shape, &Device::Cpu)?;
    if ours.size_in_bytes() > want.size_in_bytes() || ours == DType::F64 {
        return Ok(tensor.to_dtype(want)?.to_device(device)?);
    }
    Ok(tensor.to_device(device)?.to_dtype(want)?)
}

/// candle's name of a type whose bytes it takes as they are.
const fn candles(stored: Stored) -> Option<DType> {
    match stored {
        Stored::Plain(Dtype::F64) => Some(DType::F64),
        Stored::Plain(Dtype::F32) => Some(DType::F32),
        Stored::Plain(Dtype::F16) => Some(DType::F16),
        Stored::Plain(Dtype::BF16) => Some(DType::BF16),
        _ => None,
    }
}

/// Rows times scales.
fn multiply(values: &mut [f32], scale: Option<&[f32]>) {
    let Some(scale) = scale.filter(|scale| !scale.is_empty() && !values.is_empty()) else {
        return;
    };
    let n_columns = values.len().div_ceil(scale.len());
    for (row, factor) in values.chunks_mut(n_columns).zip(scale) {
        for value in row {
            *value *= factor;
        }
    }
}

/// Values as f32, of any type that holds plain numbers (for scales, ids and projections).
#[expect(
    clippy::cast_possible_truncation,
    reason = "f64 weights are rounded to f32 on purpose"
)]
pub(crate) fn numbers(bytes: &[u8], stored: Stored) -> Result<Vec<f32>> {
    let dtype = match stored {
        Stored::Plain(dtype) => dtype,
        Stored::Blocks(blocks) => return blocks.values(bytes),
        Stored::Unknown(_) => return Err(no_weights(stored)),
    };
    Ok(match dtype {
        Dtype::F64 => each(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |chunk| f16::from_le_bytes(chunk).to_f32()),
        Dtype::BF16 => each(bytes, |chunk| bf16::from_le_bytes(chunk).to_f32()),
        Dtype::I64 => each(bytes, |chunk| i64::from_le_bytes(chunk) as f32),
        Dtype::I32 => each(bytes, |chunk| i32::from_le_bytes(chunk) as f32),
        Dtype::F8_E4M3 => table(bytes, e4m3),
        Dtype::F8_E5M2 => table(bytes, e5m2),
        _ => return Err(no_weights(stored)),
    })
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| value(*chunk)).collect()
}

fn no_weights(stored: Stored) -> Error {
    let message = format!("values of type {stored} cannot be weights");
    Error::new(ErrorKind::TensorValue, message)
}

fn table(bytes: &[u8], value: fn(u8) -> f32) -> Vec<f32> {
    let values: Vec<f32> = (0..=u8::MAX).map(value).collect();
    bytes
        .iter()
        .map(|byte| values[usize::from(*byte)])
        .collect()
}

/// `e4m3fn` (OCP 8-bit floating point): bias 7, largest 448, no infinities, all ones is NaN,
/// subnormals are mantissa · 2^-9.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3) & 0xf, f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::from(exponent).exp2() / 128.0,
    };
    if byte & 0x80 == 0 { size } else { -size }
}

/// `e5m2` is the high byte of an IEEE half.
fn e5m2(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// What is wrong with a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// NaN or infinite, at this index.
    NotFinite(usize),
    /// Finite as stored, but not in the type wanted, at this index.
    TooLarge(usize),
    /// Nothing but zeros.
    AllZero,
}

/// Looks at bit patterns only: one pass over the bytes, without conversion. Blocks must be expanded
/// first.
pub(crate) fn flaw(bytes: &[u8], stored: Stored) -> Option<Flaw> {
    let Stored::Plain(dtype) = stored else {
        return None;
    };
    let double = |chunk| u64::from_le_bytes(chunk) << 1;
    let single = |chunk| u64::from(u32::from_le_bytes(chunk) << 1);
    let half = |chunk| u64::from(u16::from_le_bytes(chunk) << 1);
    let quarter = |[byte]: [u8; 1]| u64::from(byte << 1);
    // Exponent bits that mark NaN and infinity, and the sign bit, of the value's high bytes.
    let (finite, nonzero) = match dtype {
        Dtype::F64 => scan(bytes, double, 0xffe0_0000_0000_0000),
        Dtype::F32 => scan(bytes, single, 0xff00_0000),
        Dtype::F16 => scan(bytes, half, 0xf800),
        Dtype::BF16 => scan(bytes, half, 0xff00),
        Dtype::F8_E4M3 => scan(bytes, quarter, 0xfe),
        Dtype::F8_E5M2 => scan(bytes, quarter, 0xf8),
        _ => return None,
    };
    verdict(finite, None, nonzero)
}

/// The same where the values are to become another type: the first of either kind.
pub(crate) fn flaw_as(bytes: &[u8], stored: Stored, want: DType) -> Option<Flaw> {
    let found = flaw(bytes, stored);
    let special = match found {
        Some(Flaw::NotFinite(index)) => Some(index),
        _ => None,
    };
    let large = beyond_as(bytes, stored, want);
    verdict(special, large, found != Some(Flaw::AllZero))
}

/// The least magnitude that becomes infinite where it is rounded to a type.
fn limit(want: DType) -> f64 {
    match want {
        DType::F16 => 65520.0,
        DType::BF16 => f64::from(f32::from_bits(0x7f7f_8000)),
        // Half a step above the greatest.
        DType::F32 => f64::from(f32::MAX) + 2_f64.powi(103),
        _ => f64::INFINITY,
    }
}

/// The first of some values that is finite and that a type cannot hold.
fn beyond_as(bytes: &[u8], stored: Stored, want: DType) -> Option<usize> {
    let Stored::Plain(dtype) = stored else {
        return None;
    };
    match (dtype, want) {
        (Dtype::F64, DType::F32 | DType::F16 | DType::BF16) => {
            first(bytes, want, f64::from_le_bytes)
        }
        (Dtype::F32, DType::F16 | DType::BF16) => {
            first(bytes, want, |chunk| f32::from_le_bytes(chunk).into())
        }
        (Dtype::BF16, DType::F16) => first(bytes, want, |chunk| {
            f64::from(bf16::from_le_bytes(chunk).to_f32())
        }),
        _ => None,
    }
}

fn first<const N: usize>(
    bytes: &[u8],
    want: DType,
    value: impl Fn([u8; N]) -> f64,
) -> Option<usize> {
    let (chunks, _) = bytes.as_chunks::<N>();
    let limit = limit(want);
    let is_large = |chunk: &[u8; N]| {
        let size = value(*chunk).abs();
        size >= limit && size < f64::INFINITY
    };
    // Without a way out, so that the loop becomes vector instructions.
    let any = chunks
        .iter()
        .fold(false, |any, chunk| any | is_large(chunk));
    any.then(|| chunks.iter().position(is_large)).flatten()
}

/// The first of some values that a type cannot hold.
#[expect(
    clippy::cast_possible_truncation,
    reason = "beyond the greatest f32 is infinity"
)]
fn beyond(values: &[f32], want: DType) -> Option<usize> {
    let limit = limit(want) as f32;
    let any = values
        .iter()
        .fold(false, |any, value| any | (value.abs() >= limit));
    let first = || values.iter().position(|value| value.abs() >= limit);
    any.then(first).flatten()
}

/// A value that would become infinite in the type that was asked for.
pub(crate) fn too_large(index: usize, want: DType) -> Error {
    let message = format!("value {index} is too large for {want:?}");
    let error = Error::new(ErrorKind::TensorValue, message);
    error.hint(match want {
        DType::F16 => "load it as bf16 or f32",
        DType::BF16 => "load it as f32",
        _ => "the file is damaged, or was converted with an overflow",
    })
}

/// The same for values that were expanded.
pub(crate) fn flaw_of(values: &[f32]) -> Option<Flaw> {
    let bad = values.iter().position(|value| !value.is_finite());
    verdict(bad, None, values.iter().any(|value| value.abs() > 0.0))
}

/// From the first value that is not finite, the first that is too large, and whether any is not zero.
pub(crate) fn verdict(special: Option<usize>, large: Option<usize>, nonzero: bool) -> Option<Flaw> {
    match (special, large, nonzero) {
        (Some(index), None, _) => Some(Flaw::NotFinite(index)),
        (Some(index), Some(other), _) if index < other => Some(Flaw::NotFinite(index)),
        (_, Some(index), _) => Some(Flaw::TooLarge(index)),
        (None, None, false) => Some(Flaw::AllZero),
        (None, None, true) => None,
    }
}

/// First index whose exponent is all ones, and whether any value is not zero. `bits` gives the
/// pattern without its sign.
fn scan<const N: usize>(
    bytes: &[u8],
    bits: impl Fn([u8; N]) -> u64,
    exponent: u64,
) -> (Option<usize>, bool) {
    let (chunks, _) = bytes.as_chunks::<N>();
    let mut nonzero = 0;
    let mut special = false;
    for chunk in chunks {
        let pattern = bits(*chunk);
        nonzero |= pattern;
        special |= pattern & exponent == exponent;
    }
    let is_special = |chunk: &[u8; N]| bits(*chunk) & exponent == exponent;
    let first = if special {
        chunks.iter().position(is_special)
    } else {
        None
    };
    (first, nonzero != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_values() {
        let e4m3_cases = [
            (0x00, 0.0),
            (0x38, 1.0),
            (0xb8, -1.0),
            (0x7e, 448.0),
            (0x01, 1.0 / 512.0),
            (0x08, 1.0 / 64.0),
        ];
        for (byte, want) in e4m3_cases {
            assert_eq!(e4m3(byte).to_bits(), f32::to_bits(want), "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        let e5m2_cases = [
            (0x3c, 1.0),
            (0xbc, -1.0),
            (0x7b, 57344.0),
            (0x01, 2.0_f32.powi(-16)),
        ];
        for (byte, want) in e5m2_cases {
            assert_eq!(e5m2(byte).to_bits(), f32::to_bits(want), "{byte:#x}");
        }
    }

    /// Our table against candle's own decoder, all 256 values.
    #[test]
    fn e4m3_is_candles() {
        let bytes: Vec<u8> = (0..=255).collect();
        let theirs = Tensor::from_raw_buffer(&bytes, DType::F8E4M3, &[256], &Device::Cpu).unwrap();
        let theirs = theirs
            .to_dtype(DType::F32)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        for (byte, theirs) in (0..=255).zip(theirs) {
            let ours = e4m3(byte);
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{byte:#x}"
            );
        }
    }

    #[test]
    fn flaws() {
        let singles = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        let special = |index| Some(Flaw::NotFinite(index));
        let cases = [
            (Dtype::F32, singles([1.0, f32::MAX]), None),
            (Dtype::F32, singles([0.0, -0.0]), Some(Flaw::AllZero)),
            (Dtype::F32, singles([1.0, f32::INFINITY]), special(1)),
            (Dtype::F16, vec![0x00, 0x7c, 0, 0], special(0)),
            (Dtype::BF16, vec![0x7f, 0x7f], None),
            (Dtype::F8_E4M3, vec![0x38, 0x7f], special(1)),
            (Dtype::F8_E4M3, vec![0x78, 0x7e], None),
            (Dtype::F8_E5M2, vec![0x3c, 0x7c], special(1)),
        ];
        for (dtype, bytes, want) in cases {
            let found = flaw(&bytes, Stored::Plain(dtype));
            assert_eq!(found, want, "{dtype} {bytes:x?}");
        }
    }
}
