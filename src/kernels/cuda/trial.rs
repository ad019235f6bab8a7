//! What our own kernels make of a product, and the library where it adds to the residual stream, beside what the
//! library makes of it plainly, on the host: whatever is wrong with them on some card, they are not used there.
#![expect(unsafe_code, reason = "memory of the card is copied by address")]

use candle_core::cuda_backend::cudarc::driver::result;
use half::{bf16, f16};

use super::engine::{Engine, State};
use super::failure::Tried;
use super::functions::Address;
use super::product::{Product, Way};
use super::running::At;
use super::start::On;
use super::trying::{Unknown, set};
use crate::error::Result;
use crate::kernels::plan::{Kind, Matrix, Place, Sizes, Step};

/// How far two ways may be apart, beside the largest value: both sum in f32 and round once or twice.
const fn bar(kind: Kind) -> f32 {
    match kind {
        Kind::F32 => 1e-3,
        Kind::F16 => 5e-3,
        Kind::Bf16 => 4e-2,
    }
}

impl Engine {
    /// True for the library's plain ways, and for others where the results are close. `right` is kept from call
    /// to call: the library's result.
    pub(super) fn agrees(
        &self,
        state: &mut State,
        (windows, product): (usize, Unknown),
        right: &mut Option<Vec<f32>>,
    ) -> Result<bool> {
        let (_, from, to) = product;
        let shape = self.weights.sizes.product(from, to, windows);
        let made = state.products.get(&shape);
        let Some((way, likely)) = made.map(|made| (made.way(), made.likely())) else {
            return Ok(true);
        };
        if matches!(way, Way::Library(_)) {
            return Ok(true);
        }
        if right.is_none() {
            set(state, &shape, likely);
            *right = Some(self.result(state, windows, product)?);
            set(state, &shape, way);
        }
        let ours = match way {
            Way::Adding(_) => self.added_result(state, windows, product)?,
            Way::Library(_) | Way::Own(_) => self.result(state, windows, product)?,
        };
        let right = right.as_deref().unwrap_or_default();
        Ok(close(&ours, right, bar(shape.result)))
    }

    /// A product of the first layer, through its non-linearity where it has one.
    fn result(&self, state: &State, windows: usize, product: Unknown) -> Result<Vec<f32>> {
        let (which, from, to) = product;
        let (which, at) = (which.of_layer(0), At::new(state, windows)?);
        let sizes = &self.weights.sizes;
        let (count, kind) = (Sizes::rows(to, windows) * sizes.row(to), sizes.kind(to));
        let shape = sizes.product(from, to, windows);
        let tiles = state.products.get(&shape).and_then(Product::tiles);
        let (place, count_of_all) = match (tiles, kind) {
            (Some(tiles), Kind::F32) => (at.memory.workspace(), count * tiles.parts),
            _ => (at.memory.at(to), count),
        };
        // So that what was there before is nobody's result: no number in any type.
        self.fill_with(0xff, place, count_of_all * kind.bytes())?;
        let on = On::plainly(&self.stream);
        self.step(at, on, Step::Product(which, from, to))?;
        if let Matrix::Up(layer) = which {
            self.step(at, on, Step::Activate(layer))?;
        }
        Ok(added(&self.download(place, count_of_all, kind)?, count))
    }

    /// The same where it is added to the residual stream, which is zeros before: without the bias.
    fn added_result(&self, state: &State, windows: usize, product: Unknown) -> Result<Vec<f32>> {
        let (which, from, to) = product;
        let (which, at) = (which.of_layer(0), At::new(state, windows)?);
        let width = self.weights.sizes.width;
        let (place, count) = (at.memory.at(Place::X), Sizes::rows(to, windows) * width);
        self.fill_with(0, place, count * size_of::<f32>())?;
        self.step(
            at,
            On::plainly(&self.stream),
            Step::Product(which, from, to),
        )?;
        let bias = self.download(self.weights.product(which)[1], width, Kind::F32)?;
        let mut sums = self.download(place, count, Kind::F32)?;
        for row in sums.chunks_exact_mut(width) {
            for (sum, bias) in row.iter_mut().zip(&bias) {
                *sum -= bias;
            }
        }
        Ok(sums)
    }

    fn fill_with(&self, byte: u8, place: Address, bytes: usize) -> Result<()> {
        // SAFETY: so many bytes are about to be written by a product.
        let set = unsafe { result::memset_d8_async(place, byte, bytes, self.stream.cu_stream()) };
        set.tried("fill memory of the card")
    }

    fn download(&self, from: Address, count: usize, kind: Kind) -> Result<Vec<f32>> {
        let mut bytes = vec![0_u8; count * kind.bytes()];
        // SAFETY: the buffer holds so many values; the stream has run when the bytes are looked at.
        let copied =
            unsafe { result::memcpy_dtoh_async(&mut bytes, from, self.stream.cu_stream()) };
        copied.tried("copy a result to the host")?;
        self.stream.synchronize().tried("finish its work")?;
        Ok(widened(&bytes, kind))
    }
}

fn widened(bytes: &[u8], kind: Kind) -> Vec<f32> {
    let (pairs, fours) = (bytes.as_chunks().0.iter(), bytes.as_chunks().0.iter());
    match kind {
        Kind::F32 => fours.map(|four| f32::from_le_bytes(*four)).collect(),
        Kind::F16 => pairs
            .map(|pair| f16::from_le_bytes(*pair).to_f32())
            .collect(),
        Kind::Bf16 => pairs
            .map(|pair| bf16::from_le_bytes(*pair).to_f32())
            .collect(),
    }
}

/// Planes behind each other, added up.
fn added(planes: &[f32], count: usize) -> Vec<f32> {
    let mut sums = vec![0.0; count];
    for plane in planes.chunks_exact(count.max(1)) {
        for (sum, value) in sums.iter_mut().zip(plane) {
            *sum += value;
        }
    }
    sums
}

/// True if all differences are small beside the largest value. What is no number is close to nothing.
fn close(ours: &[f32], right: &[f32], bar: f32) -> bool {
    let largest = right
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    let bar = bar * largest;
    ours.len() == right.len()
        && ours
            .iter()
            .zip(right)
            .all(|(ours, right)| (ours - right).abs() <= bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_close_to_nothing() {
        assert!(close(&[1.0, 2.001], &[1.0, 2.0], 1e-3));
        assert!(!close(&[1.0, 2.01], &[1.0, 2.0], 1e-3));
        assert!(!close(&[f32::NAN, 2.0], &[1.0, 2.0], 1e-3));
        assert!(!close(&[1.0, 2.0], &[f32::NAN, 2.0], 1e-3));
        assert!(!close(&[1.0], &[1.0, 2.0], 1.0));
    }

    #[test]
    fn planes_are_added_and_types_widened() {
        assert_eq!(added(&[1.0, 2.0, 10.0, 20.0], 2), [11.0, 22.0]);
        assert_eq!(widened(&[0, 0, 128, 63], Kind::F32), [1.0]);
        assert_eq!(widened(&[0, 60, 0, 192], Kind::F16), [1.0, -2.0]);
        assert_eq!(widened(&[128, 63, 0, 192], Kind::Bf16), [1.0, -2.0]);
    }
}
