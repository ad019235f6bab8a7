//! STORED BYTES → VALUES IN THEIR PLACE. Pieces of a tensor are read on all of rayon's threads, and
//! checked and converted while the processor's cache still has them: no second copy of a tensor is
//! made.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};
use half::vec::HalfBitsVecExt as _;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::archive::{Archive, Entry};
use super::decode::{self, Flaw};
use super::stored::{Form, Stored};
use crate::error::Result;

/// Values that are read at once: with what they become they fit a core's own cache.
const STEP: usize = 1 << 17;

/// A tensor that is being filled from its first value on.
#[derive(Debug)]
pub(crate) struct Filling {
    stored: Plain,
    values: Values,
    n_filled: usize,
}

/// The types that are read here; others take another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    F32,
    F16,
    Bf16,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    /// Bits, because room for these is zero pages that cost nothing.
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

/// A part of the values.
enum Place<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Bf16(&'a mut [u16]),
}

/// Room of one thread.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    bits: Vec<u16>,
    wide: Vec<f32>,
}

/// What values look like.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The first that is NaN or infinite.
    special: Option<usize>,
    nonzero: bool,
}

impl Plain {
    fn of(entry: &Entry) -> Option<Plain> {
        match (entry.stored, &entry.form) {
            (Stored::Plain(Dtype::F32), Form::Dense) => Some(Plain::F32),
            (Stored::Plain(Dtype::F16), Form::Dense) => Some(Plain::F16),
            (Stored::Plain(Dtype::BF16), Form::Dense) => Some(Plain::Bf16),
            _ => None,
        }
    }

    fn n_bytes(self) -> usize {
        match self {
            Plain::F32 => 4,
            Plain::F16 | Plain::Bf16 => 2,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Plain::F32 => DType::F32,
            Plain::F16 => DType::F16,
            Plain::Bf16 => DType::BF16,
        }
    }
}

impl Filling {
    /// Room for so many bytes that are so many values, stored like `entry`, in the type wanted; a GPU
    /// widens them itself. `None` for types that are not read here.
    pub(crate) fn new(
        entry: &Entry,
        [n_bytes, n_values]: [u64; 2],
        want: DType,
        device: &Device,
    ) -> Option<Filling> {
        let stored = Plain::of(entry)?;
        if n_values.checked_mul(stored.n_bytes() as u64) != Some(n_bytes) {
            return None;
        }
        let n_values = usize::try_from(n_values).ok()?;
        let widens = stored.dtype().size_in_bytes() < want.size_in_bytes();
        let kept = if widens && !device.is_cpu() {
            stored.dtype()
        } else {
            want
        };
        let values = match kept {
            DType::F32 => Values::F32(vec![0.0; n_values]),
            DType::F16 => Values::F16(vec![0; n_values]),
            DType::BF16 => Values::Bf16(vec![0; n_values]),
            _ => return None,
        };
        Some(Filling {
            stored,
            values,
            n_filled: 0,
        })
    }

    /// True if a tensor can be the next part of this.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        Plain::of(entry) == Some(self.stored)
    }

    /// Reads some bytes of a tensor into the next free places; what is wrong with them, if anything.
    pub(crate) fn add(
        &mut self,
        archive: &Archive,
        entry: &Entry,
        range: &Range<u64>,
    ) -> Result<Option<Flaw>> {
        let job = Job {
            archive,
            entry,
            stored: self.stored,
            start: range.start,
        };
        let n_bytes = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let (from, to) = (
            self.n_filled,
            self.n_filled + n_bytes / self.stored.n_bytes(),
        );
        let seen = match &mut self.values {
            Values::F32(all) => job.run(&mut all[from..to], |part| Place::F32(part)),
            Values::F16(all) => job.run(&mut all[from..to], |part| Place::F16(part)),
            Values::Bf16(all) => job.run(&mut all[from..to], |part| Place::Bf16(part)),
        }?;
        self.n_filled = to;
        Ok(decode::verdict(seen.special, seen.nonzero))
    }

    /// The tensor, on its device.
    pub(crate) fn finish(self, shape: &[usize], want: DType, device: &Device) -> Result<Tensor> {
        let cpu = &Device::Cpu;
        let tensor = match self.values {
            Values::F32(values) => Tensor::from_vec(values, shape, cpu)?,
            Values::F16(bits) => Tensor::from_vec(bits.reinterpret_into::<f16>(), shape, cpu)?,
            Values::Bf16(bits) => Tensor::from_vec(bits.reinterpret_into::<bf16>(), shape, cpu)?,
        };
        Ok(tensor.to_device(device)?.to_dtype(want)?)
    }
}

/// One part of a tensor to read.
#[derive(Clone, Copy)]
struct Job<'a> {
    archive: &'a Archive,
    entry: &'a Entry,
    stored: Plain,
    start: u64,
}

impl Job<'_> {
    fn run<T: Send>(&self, values: &mut [T], place: fn(&mut [T]) -> Place<'_>) -> Result<Seen> {
        let step = |scratch: &mut Scratch, (number, values): (usize, &mut [T])| {
            let n_values = values.len();
            self.step(number * STEP, place(values), n_values, scratch)
        };
        if values.len() <= STEP {
            // Waking other threads would take longer.
            return step(&mut Scratch::default(), (0, values));
        }
        let steps = values.par_chunks_mut(STEP).enumerate();
        let seen = steps.map_init(Scratch::default, step);
        seen.try_reduce(Seen::default, |one, other| Ok(one.and(other)))
    }
}

impl Job<'_> {
    /// Reads so many values, from this one of the part on.
    fn step(
        &self,
        first: usize,
        place: Place<'_>,
        n_values: usize,
        scratch: &mut Scratch,
    ) -> Result<Seen> {
        let size = self.stored.n_bytes();
        let Scratch { bytes, bits, wide } = scratch;
        bytes.resize(n_values * size, 0);
        let start = self.start + (first * size) as u64;
        self.archive.read_into(self.entry, start, bytes)?;
        let seen = convert(bytes, self.stored, place, bits, wide);
        let special = seen.special.map(|index| first + index);
        Ok(Seen { special, ..seen })
    }
}

impl Seen {
    fn and(self, other: Seen) -> Seen {
        let special = [self.special, other.special].into_iter().flatten().min();
        let nonzero = self.nonzero || other.nonzero;
        Seen { special, nonzero }
    }

    /// `special` says whether there is any value that is NaN or infinite; where, is looked up.
    fn of(bytes: &[u8], stored: Dtype, special: bool, nonzero: bool) -> Seen {
        let flaw = special.then(|| decode::flaw(bytes, Stored::Plain(stored)));
        let special = match flaw.flatten() {
            Some(Flaw::NotFinite(index)) => Some(index),
            Some(Flaw::AllZero) | None => None,
        };
        Seen { special, nonzero }
    }
}

/// Stored bytes to the values wanted. Rounds to nearest, ties to even, as candle does.
fn convert(
    bytes: &[u8],
    stored: Plain,
    place: Place<'_>,
    bits: &mut Vec<u16>,
    wide: &mut Vec<f32>,
) -> Seen {
    match (stored, place) {
        (Plain::F16, Place::F16(values)) => halves(bytes, Dtype::F16, values),
        (Plain::Bf16, Place::Bf16(values)) => halves(bytes, Dtype::BF16, values),
        (_, Place::F32(values)) => widen(bytes, stored, values, bits),
        (_, Place::F16(values)) => {
            wide.resize(values.len(), 0.0);
            let seen = widen(bytes, stored, wide, bits);
            values
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(wide);
            seen
        }
        (_, Place::Bf16(values)) => {
            wide.resize(values.len(), 0.0);
            let seen = widen(bytes, stored, wide, bits);
            values
                .reinterpret_cast_mut::<bf16>()
                .convert_from_f32_slice(wide);
            seen
        }
    }
}

fn widen(bytes: &[u8], stored: Plain, values: &mut [f32], bits: &mut Vec<u16>) -> Seen {
    match stored {
        Plain::F32 => singles(bytes, values),
        Plain::F16 => {
            bits.resize(values.len(), 0);
            let seen = halves(bytes, Dtype::F16, bits);
            bits.reinterpret_cast::<f16>().convert_to_f32_slice(values);
            seen
        }
        Plain::Bf16 => {
            bits.resize(values.len(), 0);
            let seen = halves(bytes, Dtype::BF16, bits);
            for (value, bits) in values.iter_mut().zip(bits) {
                *value = f32::from_bits(u32::from(*bits) << 16);
            }
            seen
        }
    }
}

fn halves(bytes: &[u8], stored: Dtype, values: &mut [u16]) -> Seen {
    let exponent = if stored == Dtype::BF16 {
        0x7f80
    } else {
        0x7c00
    };
    let (mut any, mut special) = (0, false);
    for (stored, value) in bytes.as_chunks().0.iter().zip(values) {
        let bits = u16::from_le_bytes(*stored);
        any |= bits << 1;
        special |= bits & exponent == exponent;
        *value = bits;
    }
    Seen::of(bytes, stored, special, any != 0)
}

fn singles(bytes: &[u8], values: &mut [f32]) -> Seen {
    const EXPONENT: u32 = 0x7f80_0000;
    let (mut any, mut special) = (0, false);
    for (stored, value) in bytes.as_chunks().0.iter().zip(values) {
        let bits = u32::from_le_bytes(*stored);
        any |= bits << 1;
        special |= bits & EXPONENT == EXPONENT;
        *value = f32::from_bits(bits);
    }
    Seen::of(bytes, Dtype::F32, special, any != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: [(Plain, Dtype); 3] = [
        (Plain::F32, Dtype::F32),
        (Plain::F16, Dtype::F16),
        (Plain::Bf16, Dtype::BF16),
    ];

    /// All 65536 patterns of 16 bits (as they are, or as the upper half of an f32), against candle's
    /// own conversions.
    #[test]
    fn every_pattern_is_converted_as_candle_does() {
        for (stored, dtype) in STORED {
            let bytes: Vec<u8> = (0..=u16::MAX)
                .flat_map(|bits| match stored {
                    Plain::F32 => (u32::from(bits) << 16 | 0x9000).to_le_bytes().to_vec(),
                    Plain::F16 | Plain::Bf16 => bits.to_le_bytes().to_vec(),
                })
                .collect();
            let n_values = 1 << 16;
            let plain = Tensor::from_raw_buffer(&bytes, stored.dtype(), &[n_values], &Device::Cpu);
            let plain = plain.unwrap();
            let (mut wide, mut half, mut brain) =
                (vec![0.0; n_values], vec![0; n_values], vec![0; n_values]);
            let places = [
                Place::F32(&mut wide),
                Place::F16(&mut half),
                Place::Bf16(&mut brain),
            ];
            for place in places {
                let seen = convert(&bytes, stored, place, &mut vec![], &mut vec![]);
                let flaw = decode::flaw(&bytes, Stored::Plain(dtype));
                assert_eq!(decode::verdict(seen.special, seen.nonzero), flaw);
            }
            let half: Vec<f16> = half.reinterpret_into();
            let brain: Vec<bf16> = brain.reinterpret_into();
            for number in 0..n_values {
                let value = plain.get(number).unwrap();
                let value = |dtype| value.to_dtype(dtype).unwrap();
                let exact = value(DType::F32).to_scalar::<f32>().unwrap();
                if exact.is_nan() {
                    assert!(wide[number].is_nan());
                    continue;
                }
                assert_eq!(
                    wide[number].to_bits(),
                    exact.to_bits(),
                    "{stored:?} {number}"
                );
                let candles = value(DType::F16).to_scalar::<f16>().unwrap();
                assert_eq!(
                    half[number].to_bits(),
                    candles.to_bits(),
                    "{stored:?} {number}"
                );
                let candles = value(DType::BF16).to_scalar::<bf16>().unwrap();
                assert_eq!(
                    brain[number].to_bits(),
                    candles.to_bits(),
                    "{stored:?} {number}"
                );
            }
        }
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
