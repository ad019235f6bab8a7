//! BITS AS STORED → VALUES AS KEPT. What is read lies where it stays, or in one thread's scratch room
//! until it is converted: both while the processor's cache still has it.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined cannot become vector instructions"
)]

#[cfg(test)]
mod tests;

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
    special: Option<usize>,
    /// The first that the type wanted cannot hold.
    large: Option<usize>,
    nonzero: bool,
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

    /// The bits, without a sign, of the least value of 16 bits that is infinite in another type.
    fn limit(self, to: Plain) -> u16 {
        match (self, to) {
            (Plain::Bf16, Plain::F16) => 0x4780,
            (Plain::Bf16, _) => 0x7f80,
            _ => 0x7c00,
        }
    }

    /// The same of an f32 that becomes this type.
    fn limit_of_singles(self) -> i32 {
        match self {
            Plain::F32 => 0x7f80_0000,
            Plain::F16 => 0x477f_f000,
            Plain::Bf16 => 0x7f7f_8000,
        }
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
            halves(values, [stored; 2], read)
        }
        (_, Place::F32(values)) => widen(values, [stored, Plain::F32], &mut scratch.bits, read),
        (_, Place::F16(values)) => {
            let types = [stored, Plain::F16];
            let (wide, seen) = scratch.widened(values.len(), types, read)?;
            let values = values.reinterpret_cast_mut::<f16>();
            values.convert_from_f32_slice(wide);
            Ok(seen)
        }
        (_, Place::Bf16(values)) => brains(values, stored, scratch, read),
    }
}

/// What values that stay where they are look like. Their bytes are this machine's, and begin where a value may.
pub(super) fn look(stored: Plain, bytes: &[u8]) -> Seen {
    match stored {
        Plain::F32 => seen_singles(bytemuck::cast_slice(bytes), stored),
        Plain::F16 | Plain::Bf16 => seen_halves(bytemuck::cast_slice(bytes), [stored; 2]),
    }
}

impl Scratch {
    /// So many values read into the room for f32, from where they become the second type.
    fn widened(
        &mut self,
        n_values: usize,
        types: [Plain; 2],
        read: impl Read,
    ) -> Result<(&[f32], Seen)> {
        self.wide.resize(n_values, 0.0);
        let seen = widen(&mut self.wide, types, &mut self.bits, read)?;
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
        let seen = halves(bits, [stored, Plain::Bf16], read)?;
        each(bits, values, |bits| brain(of_half(bits)));
        return Ok(seen);
    }
    let types = [stored, Plain::Bf16];
    let (wide, seen) = scratch.widened(values.len(), types, read)?;
    each(wide, values, brain);
    Ok(seen)
}

fn widen(
    values: &mut [f32],
    [stored, to]: [Plain; 2],
    bits: &mut Vec<u16>,
    read: impl Read,
) -> Result<Seen> {
    if stored == Plain::F32 {
        return singles(values, to, read);
    }
    bits.resize(values.len(), 0);
    let seen = halves(bits, [stored, to], read)?;
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

/// Without its sign a value is NaN or infinite, or will be, if its bits, as a number, are not below a
/// limit: what is asked for costs no second look.
fn halves(values: &mut [u16], types: [Plain; 2], read: impl Read) -> Result<Seen> {
    read(bytemuck::cast_slice_mut(values))?;
    if cfg!(target_endian = "big") {
        for value in values.iter_mut() {
            *value = u16::from_le(*value);
        }
    }
    Ok(seen_halves(values, types))
}

fn seen_halves(values: &[u16], [stored, to]: [Plain; 2]) -> Seen {
    let (limit, special) = (stored.limit(to), stored.limit(stored));
    let mut greatest = 0;
    pulp::Arch::new().dispatch(|| {
        for value in values {
            greatest = greatest.max((*value & 0x7fff).cast_signed());
        }
    });
    let is_bad = greatest.cast_unsigned() >= limit;
    let first = || values.iter().position(|bits| bits & 0x7fff >= limit);
    let bad = if is_bad { first() } else { None };
    let finite = |index: usize| values[index] & 0x7fff < special;
    Seen::of(bad, finite, greatest != 0)
}

fn singles(values: &mut [f32], to: Plain, read: impl Read) -> Result<Seen> {
    read(bytemuck::cast_slice_mut(values))?;
    if cfg!(target_endian = "big") {
        for value in values.iter_mut() {
            *value = f32::from_bits(u32::from_le(value.to_bits()));
        }
    }
    Ok(seen_singles(values, to))
}

fn seen_singles(values: &[f32], to: Plain) -> Seen {
    let limit = to.limit_of_singles();
    let mut greatest = 0;
    pulp::Arch::new().dispatch(|| {
        for value in values {
            greatest = greatest.max((value.to_bits() & 0x7fff_ffff).cast_signed());
        }
    });
    let is_bad = |value: &f32| (value.to_bits() & 0x7fff_ffff).cast_signed() >= limit;
    let first = || values.iter().position(is_bad);
    let bad = if greatest >= limit { first() } else { None };
    Seen::of(bad, |index| values[index].is_finite(), greatest != 0)
}

impl Seen {
    /// From the first bad value, if there is one.
    fn of(bad: Option<usize>, finite: impl Fn(usize) -> bool, nonzero: bool) -> Seen {
        Seen {
            special: bad.filter(|index| !finite(*index)),
            large: bad.filter(|index| finite(*index)),
            nonzero,
        }
    }

    /// The same of values that have so many before them.
    pub(super) fn behind(self, count: usize) -> Seen {
        Seen {
            special: self.special.map(|index| count + index),
            large: self.large.map(|index| count + index),
            nonzero: self.nonzero,
        }
    }

    pub(super) fn and(self, other: Seen) -> Seen {
        let least = |one: Option<usize>, other| [one, other].into_iter().flatten().min();
        Seen {
            special: least(self.special, other.special),
            large: least(self.large, other.large),
            nonzero: self.nonzero || other.nonzero,
        }
    }

    /// What cannot be trained weights, if anything.
    pub(super) fn flaw(self) -> Option<Flaw> {
        decode::verdict(self.special, self.large, self.nonzero)
    }
}
