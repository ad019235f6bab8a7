//! Refuses to write values that are not finite: no U-Net makes anything of them.

use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::{Conditioning, Error, ErrorKind, Result, storage};

use crate::output::Named;
use crate::sides::Side;
use crate::together::Made;

/// Refuses tensors of a file; the error says whose the tensor is.
pub(crate) fn expect(tensors: &Named) -> Result<()> {
    storage::expect_finite(tensors).map_err(|error| {
        let name = error.tensor().unwrap_or_default();
        let is_negative = name.contains(Side::Negative.prefix());
        of_side(&error, Side::BOTH[usize::from(is_negative)])
    })
}

/// An error of a type that makes a value infinite, with the side that has the value.
pub(crate) fn blamed(error: Error, made: &Made, dtype: DType) -> Error {
    if error.kind() != ErrorKind::TensorValue {
        return error;
    }
    let fails = |one: &Conditioning| {
        let there = one.to_device(&Device::Cpu);
        there.and_then(|one| one.to_dtype(dtype)).is_err()
    };
    let mut all = conditionings(made).into_iter();
    match all.find(|(_, one)| fails(one)) {
        Some((side, _)) => of_side(&error, side),
        None => error,
    }
}

fn conditionings(made: &Made) -> Vec<(Side, &Conditioning)> {
    match made {
        Made::Sides(sides) => sides.iter().map(|(side, one)| (*side, one)).collect(),
        Made::Passes(passes) => {
            let sides = passes.iter().flat_map(|pass| &pass.sides);
            let entries = sides.flat_map(|(side, timeline)| {
                let entries = timeline.entries();
                entries.map(|entry| (*side, &entry.conditioning))
            });
            entries.collect()
        }
    }
}

fn of_side(error: &Error, side: Side) -> Error {
    let message = format!("{}: {}", side.name(), error.message());
    let named = Error::new(error.kind(), message).at_tensor(error.tensor().unwrap_or_default());
    match error.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}
