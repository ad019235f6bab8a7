//! Every pattern of bits, and the edges of each type.

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
        let flaw = |want| decode::flaw_as(&bytes, Stored::Plain(dtype), want);
        let mut wide = vec![0.0; N_PATTERNS];
        let (mut half, mut brain) = (vec![0; N_PATTERNS], vec![0; N_PATTERNS]);
        let seen = filled(Place::F32(&mut wide), stored, &bytes);
        assert_eq!(seen.flaw(), flaw(DType::F32));
        let seen = filled(Place::F16(&mut half), stored, &bytes);
        assert_eq!(seen.flaw(), flaw(DType::F16));
        let seen = filled(Place::Bf16(&mut brain), stored, &bytes);
        assert_eq!(seen.flaw(), flaw(DType::BF16));
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
    let seen = |special, large, nonzero| Seen {
        special,
        large,
        nonzero,
    };
    let both = seen(Some(9), None, false).and(seen(Some(4), None, true));
    assert_eq!((both.special, both.nonzero), (Some(4), true));
    let both = seen(None, None, false).and(seen(Some(4), Some(5), false));
    assert_eq!((both.special, both.nonzero), (Some(4), false));
    assert_eq!(both.flaw(), Some(Flaw::NotFinite(4)));
    let both = both.and(seen(None, Some(3), true)).behind(10);
    assert_eq!(both.flaw(), Some(Flaw::TooLarge(13)));
}

/// The last value that is rounded down, and the first that becomes infinite.
#[test]
fn values_that_the_new_type_cannot_hold() {
    let check = |stored: Plain, bits: u32, to: DType, want: Option<Flaw>| {
        let one = 1.0_f32.to_bits();
        let bytes = match stored {
            Plain::F32 => [one, bits].map(u32::to_le_bytes).concat(),
            _ => [one, bits]
                .map(|bits| ((bits >> 16) as u16).to_le_bytes())
                .concat(),
        };
        let (mut half, mut brain) = ([0; 2], [0; 2]);
        let seen = match to {
            DType::F16 => filled(Place::F16(&mut half), stored, &bytes),
            _ => filled(Place::Bf16(&mut brain), stored, &bytes),
        };
        assert_eq!(seen.flaw(), want, "{stored:?} {bits:#x} {to:?}");
    };
    let large = Some(Flaw::TooLarge(1));
    check(Plain::F32, 0x477f_efff, DType::F16, None);
    check(Plain::F32, 0xc77f_f000, DType::F16, large);
    check(
        Plain::F32,
        0x7f80_0000,
        DType::F16,
        Some(Flaw::NotFinite(1)),
    );
    check(Plain::F32, 0x7f7f_7fff, DType::BF16, None);
    check(Plain::F32, 0x7f7f_8000, DType::BF16, large);
    check(Plain::Bf16, 0x477f_0000, DType::F16, None);
    check(Plain::Bf16, 0x4780_0000, DType::F16, large);
    check(Plain::Bf16, 0x7f7f_0000, DType::BF16, None);
}
