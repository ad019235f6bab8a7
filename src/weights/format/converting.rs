//! BITS AS STORED → VALUES AS KEPT. What is read lies where it stays, or in one thread's scratch room
//! until it is converted: both while the processor's cache still has it.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined cannot become vector instructions"
)]

use candle_core::DType;
use half::f16;
use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};
use safetensors::Dtype;

use super::decode::{self, Flaw};
use super::stored::Stored;
use crate::error::Result;

/// The types that are read here; others take another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    F32,
    F16,
    Bf16,
}

/// A part of the values.
pub(super) enum Place<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Bf16(&'a mut [u16]),
}

/// Room of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    bits: Vec<u16>,
    wide: Vec<f32>,
}

/// What values look like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The first that is NaN or infinite.
    pub(super) special: Option<usize>,
    pub(super) nonzero: bool,
}

/// What fills bytes from the file; called once for a place.
pub(super) trait Read: FnOnce(&mut [u8]) -> Result<()> {}
impl<F: FnOnce(&mut [u8]) -> Result<()>> Read for F {}

impl Plain {
    pub(super) fn of(stored: Stored) -> Option<Plain> {
        match stored {
            Stored::Plain(Dtype::F32) => Some(Plain::F32),
            Stored::Plain(Dtype::F16) => Some(Plain::F16),
            Stored::Plain(Dtype::BF16) => Some(Plain::Bf16),
            _ => None,
        }
    }

    pub(super) fn n_bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Plain::F32 => DType::F32,
            Plain::F16 => DType::F16,
            Plain::Bf16 => DType::BF16,
        }
    }

    /// The bits of an exponent that NaN and infinity have, in a type of 16 bits.
    fn exponent(self) -> u16 {
        if self == Plain::Bf16 { 0x7f80 } else { 0x7c00 }
    }
}

/// Reads values of the type stored into their place. Rounds to nearest, ties to even, as candle does.
pub(super) fn fill(
    stored: Plain,
    place: Place<'_>,
    scratch: &mut Scratch,
    read: impl Read,
) -> Result<Seen> {
    match (stored, place) {
        (Plain::F16, Place::F16(values)) | (Plain::Bf16, Place::Bf16(values)) => {
            halves(values, stored, read)
        }
        (_, Place::F32(values)) => widen(values, stored, &mut scratch.bits, read),
        (_, Place::F16(values)) => {
            let (wide, seen) = scratch.widened(values.len(), stored, read)?;
            let values = values.reinterpret_cast_mut::<f16>();
            values.convert_from_f32_slice(wide);
            Ok(seen)
        }
        (_, Place::Bf16(values)) => brains(values, stored, scratch, read),
    }
}

impl Scratch {
    /// So many values read into the room for f32.
    fn widened(
        &mut self,
        n_values: usize,
        stored: Plain,
        read: impl Read,
    ) -> Result<(&[f32], Seen)> {
        self.wide.resize(n_values, 0.0);
        let seen = widen(&mut self.wide, stored, &mut self.bits, read)?;
        Ok((&self.wide, seen))
    }
}

/// What is stored as bf16 needs no converting and is not meant here.
fn brains(
    values: &mut [u16],
    stored: Plain,
    scratch: &mut Scratch,
    read: impl Read,
) -> Result<Seen> {
    if stored == Plain::F16 {
        let bits = &mut scratch.bits;
        bits.resize(values.len(), 0);
        let seen = halves(bits, stored, read)?;
        each(bits, values, |bits| brain(of_half(bits)));
        return Ok(seen);
    }
    let (wide, seen) = scratch.widened(values.len(), stored, read)?;
    each(wide, values, brain);
    Ok(seen)
}

fn widen(values: &mut [f32], stored: Plain, bits: &mut Vec<u16>, read: impl Read) -> Result<Seen> {
    if stored == Plain::F32 {
        return singles(values, read);
    }
    bits.resize(values.len(), 0);
    let seen = halves(bits, stored, read)?;
    if stored == Plain::F16 {
        each(bits, values, of_half);
    } else {
        each(bits, values, |bits| f32::from_bits(u32::from(bits) << 16));
    }
    Ok(seen)
}

/// Every value converted, with the widest vector instructions that the machine has.
fn each<T: Copy, U>(from: &[T], to: &mut [U], convert: impl Fn(T) -> U) {
    pulp::Arch::new().dispatch(|| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = convert(*from);
        }
    });
}

/// The value of an f16. Without a branch, so that it becomes vector instructions.
#[inline(always)]
fn of_half(bits: u16) -> f32 {
    /// An exponent of one in an f32.
    const ONE: u32 = 1 << 23;
    let shifted = u32::from(bits & 0x7fff) << 13;
    let normal = shifted.wrapping_add((127 - 15) * ONE);
    let special = shifted.wrapping_add((255 - 31) * ONE);
    let least = f32::from_bits((127 - 14) * ONE);
    let small = f32::from_bits(shifted.wrapping_add((127 - 14) * ONE)) - least;
    let magnitude = if shifted < ONE {
        small.to_bits()
    } else {
        normal
    };
    let magnitude = if shifted < 31 * ONE {
        magnitude
    } else {
        special
    };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

/// An f32 in the upper 16 bits, rounded; NaN stays NaN. Without a branch, like the other.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no more than the upper half is left"
)]
#[inline(always)]
fn brain(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// Without its sign a value is NaN or infinite if its bits, as a number, are not below the largest
/// exponent's.
fn halves(values: &mut [u16], stored: Plain, read: impl Read) -> Result<Seen> {
    read(bytemuck::cast_slice_mut(values))?;
    let exponent = stored.exponent();
    let mut greatest = 0;
    pulp::Arch::new().dispatch(|| {
        for value in values.iter_mut() {
            *value = u16::from_le(*value);
            greatest = greatest.max((*value & 0x7fff).cast_signed());
        }
    });
    let special = greatest.cast_unsigned() >= exponent;
    let first = || values.iter().position(|bits| bits & exponent == exponent);
    Ok(Seen {
        special: if special { first() } else { None },
        nonzero: greatest != 0,
    })
}

fn singles(values: &mut [f32], read: impl Read) -> Result<Seen> {
    const EXPONENT: i32 = 0x7f80_0000;
    read(bytemuck::cast_slice_mut(values))?;
    let mut greatest = 0;
    pulp::Arch::new().dispatch(|| {
        for value in values.iter_mut() {
            let bits = u32::from_le(value.to_bits());
            *value = f32::from_bits(bits);
            greatest = greatest.max((bits & 0x7fff_ffff).cast_signed());
        }
    });
    let first = || values.iter().position(|value| !value.is_finite());
    Ok(Seen {
        special: if greatest >= EXPONENT { first() } else { None },
        nonzero: greatest != 0,
    })
}

impl Seen {
    pub(super) fn and(self, other: Seen) -> Seen {
        let special = [self.special, other.special].into_iter().flatten().min();
        let nonzero = self.nonzero || other.nonzero;
        Seen { special, nonzero }
    }

    /// What cannot be trained weights, if anything.
    pub(super) fn flaw(self) -> Option<Flaw> {
        decode::verdict(self.special, self.nonzero)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, WithDType};
    use half::bf16;

    use super::*;

    const STORED: [(Plain, Dtype); 3] = [
        (Plain::F32, Dtype::F32),
        (Plain::F16, Dtype::F16),
        (Plain::Bf16, Dtype::BF16),
    ];

    const N_PATTERNS: usize = 1 << 16;

    /// All patterns of 16 bits (as they are, or as the upper half of an f32), against candle's own
    /// conversions. NaN may have other bits.
    #[test]
    fn every_pattern_is_converted_as_candle_does() {
        for (stored, dtype) in STORED {
            let bytes = patterns(stored);
            let flaw = decode::flaw(&bytes, Stored::Plain(dtype));
            let mut wide = vec![0.0; N_PATTERNS];
            let (mut half, mut brain) = (vec![0; N_PATTERNS], vec![0; N_PATTERNS]);
            assert_eq!(filled(Place::F32(&mut wide), stored, &bytes).flaw(), flaw);
            assert_eq!(filled(Place::F16(&mut half), stored, &bytes).flaw(), flaw);
            assert_eq!(filled(Place::Bf16(&mut brain), stored, &bytes).flaw(), flaw);
            let exact: Vec<f32> = candles(&bytes, stored);
            let halves: Vec<f16> = candles(&bytes, stored);
            let brains: Vec<bf16> = candles(&bytes, stored);
            for number in 0..N_PATTERNS {
                let theirs = exact[number];
                if theirs.is_nan() {
                    assert!(wide[number].is_nan());
                    continue;
                }
                let ours = (wide[number].to_bits(), half[number], brain[number]);
                let (half, brain) = (halves[number].to_bits(), brains[number].to_bits());
                assert_eq!(ours, (theirs.to_bits(), half, brain), "{stored:?} {number}");
            }
        }
    }

    fn patterns(stored: Plain) -> Vec<u8> {
        let all = (0..=u16::MAX).flat_map(|bits| match stored {
            Plain::F32 => (u32::from(bits) << 16 | 0x9000).to_le_bytes().to_vec(),
            Plain::F16 | Plain::Bf16 => bits.to_le_bytes().to_vec(),
        });
        all.collect()
    }

    fn filled(place: Place<'_>, stored: Plain, bytes: &[u8]) -> Seen {
        let read = |place: &mut [u8]| {
            place.copy_from_slice(bytes);
            Ok(())
        };
        fill(stored, place, &mut Scratch::default(), read).unwrap()
    }

    fn candles<T: WithDType>(bytes: &[u8], stored: Plain) -> Vec<T> {
        let plain = Tensor::from_raw_buffer(bytes, stored.dtype(), &[N_PATTERNS], &Device::Cpu);
        plain
            .unwrap()
            .to_dtype(T::DTYPE)
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    #[test]
    fn the_first_of_all_steps_counts() {
        let seen = |special, nonzero| Seen { special, nonzero };
        let both = seen(Some(9), false).and(seen(Some(4), true));
        assert_eq!((both.special, both.nonzero), (Some(4), true));
        let both = seen(None, false).and(seen(Some(4), false));
        assert_eq!((both.special, both.nonzero), (Some(4), false));
    }
}
