//! STORED BYTES → VALUES IN THEIR PLACE. Pieces of tensors are read on all of rayon's threads, and
//! checked and converted while the processor's cache still has them: no second copy of a tensor is
//! made.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use half::vec::HalfBitsVecExt as _;
use half::{bf16, f16};
use rayon::prelude::*;

use super::archive::{Archive, Entry};
use super::converting::{self, Place, Plain, Scratch, Seen};
use super::decode::Flaw;
use super::stored::Form;
use crate::error::Result;
use crate::pages;

/// Values that are read at once: they are still in a core's own cache when they are looked at.
const STEP: usize = 1 << 17;
/// The same where they are converted, which takes room beside them: so little that it is not given back
/// to the system each time.
const CONVERTED_STEP: usize = 1 << 14;

/// Values from which a GPU widens them, so that fewer bytes are copied there. Fewer are not worth having that
/// kernel of candle's loaded.
const WIDENED_THERE: usize = 1 << 18;

/// Some bytes of a stored tensor, and how many values they should be.
#[derive(Clone, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) range: Range<u64>,
    pub(crate) n_values: usize,
}

/// Room for the values of some pieces, one after the other.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    pieces: Vec<Piece<'a>>,
    stored: Plain,
    values: Values,
    /// Where in their room the values lie.
    place: Range<usize>,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    /// Bits, because room for these is zero pages that cost nothing.
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

impl<'a> Filling<'a> {
    /// Room for pieces in the type wanted; a GPU widens large ones itself. `None` for types that are not
    /// read here, and for pieces of several types.
    pub(crate) fn new(pieces: Vec<Piece<'a>>, want: DType, device: &Device) -> Option<Filling<'a>> {
        let stored = plain(pieces.first()?.entry)?;
        if !pieces.iter().all(|piece| piece.fits(stored)) {
            return None;
        }
        let add = |sum: usize, piece: &Piece<'_>| sum.checked_add(piece.n_values);
        let n_values = pieces.iter().try_fold(0, add)?;
        let widens = stored.dtype().size_in_bytes() < want.size_in_bytes();
        let kept = if widens && !device.is_cpu() && n_values >= WIDENED_THERE {
            stored.dtype()
        } else {
            want
        };
        let (values, skipped) = Values::room(kept, n_values)?;
        // Elsewhere than here a room begins as its device wants it.
        let skipped = if device.is_cpu() { skipped } else { 0 };
        Some(Filling {
            pieces,
            stored,
            values,
            place: skipped..skipped + n_values,
        })
    }

    /// Reads all of them; what is wrong with each, if anything.
    pub(crate) fn read(&mut self, archive: &Archive) -> Result<Vec<Option<Flaw>>> {
        let job = Job {
            archive,
            pieces: &self.pieces,
            stored: self.stored,
            step: if self.stored.dtype() == self.values.dtype() {
                STEP
            } else {
                CONVERTED_STEP
            },
        };
        let place = self.place.clone();
        let seen = match &mut self.values {
            Values::F32(all) => job.run(&mut all[place], |part| Place::F32(part)),
            Values::F16(all) => job.run(&mut all[place], |part| Place::F16(part)),
            Values::Bf16(all) => job.run(&mut all[place], |part| Place::Bf16(part)),
        }?;
        Ok(seen.into_iter().map(Seen::flaw).collect())
    }

    /// Tensors of these shapes, one after the other, on their device. Several share one room.
    pub(crate) fn finish(
        self,
        shapes: &[Vec<usize>],
        want: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let (first, n_values) = (self.place.start, self.place.len());
        let whole = self.values.tensor()?.narrow(0, first, n_values)?;
        let whole = whole.to_device(device)?.to_dtype(want)?;
        if let [shape] = shapes {
            return Ok(vec![whole.reshape(shape.as_slice())?]);
        }
        let mut start = 0;
        let parts = shapes.iter().map(|shape| {
            let n_values = shape.iter().product();
            let part = whole.narrow(0, start, n_values)?;
            start += n_values;
            Ok(part.reshape(shape.as_slice())?)
        });
        parts.collect()
    }
}

impl Values {
    /// Room for so many, and how many to skip; `None` for other types.
    fn room(dtype: DType, n_values: usize) -> Option<(Values, usize)> {
        Some(match dtype {
            DType::F32 => {
                let (values, skipped) = pages::room(n_values);
                (Values::F32(values), skipped)
            }
            DType::F16 => {
                let (bits, skipped) = pages::room(n_values);
                (Values::F16(bits), skipped)
            }
            DType::BF16 => {
                let (bits, skipped) = pages::room(n_values);
                (Values::Bf16(bits), skipped)
            }
            _ => return None,
        })
    }

    fn tensor(self) -> Result<Tensor> {
        let (cpu, n_values) = (&Device::Cpu, self.len());
        Ok(match self {
            Values::F32(values) => Tensor::from_vec(values, n_values, cpu)?,
            Values::F16(bits) => Tensor::from_vec(bits.reinterpret_into::<f16>(), n_values, cpu)?,
            Values::Bf16(bits) => Tensor::from_vec(bits.reinterpret_into::<bf16>(), n_values, cpu)?,
        })
    }

    fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::BF16,
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F16(bits) | Values::Bf16(bits) => bits.len(),
        }
    }
}

impl Piece<'_> {
    /// True if its bytes are as many values of this type as they should be.
    fn fits(&self, stored: Plain) -> bool {
        let n_bytes = self.range.end.saturating_sub(self.range.start);
        let size = stored.n_bytes() as u64;
        plain(self.entry) == Some(stored)
            && (self.n_values as u64).checked_mul(size) == Some(n_bytes)
    }
}

/// The type of a tensor that is read here.
fn plain(entry: &Entry) -> Option<Plain> {
    let dense = matches!(entry.form, Form::Dense);
    Plain::of(entry.stored).filter(|_| dense)
}

/// Pieces to read.
#[derive(Clone, Copy)]
struct Job<'a> {
    archive: &'a Archive,
    pieces: &'a [Piece<'a>],
    stored: Plain,
    /// Values that are read at once.
    step: usize,
}

/// What is read at once.
struct Step<'a, T> {
    /// Which piece it is of.
    piece: usize,
    /// The first value of the piece that is meant.
    first: usize,
    values: &'a mut [T],
}

impl Job<'_> {
    /// Fills all values; what each piece looks like.
    fn run<T: Send>(
        &self,
        values: &mut [T],
        place: fn(&mut [T]) -> Place<'_>,
    ) -> Result<Vec<Seen>> {
        let read = |scratch: &mut Scratch, step: Step<'_, T>| {
            let seen = self.step([step.piece, step.first], place(step.values), scratch)?;
            Ok((step.piece, seen))
        };
        let mut steps = self.steps(values);
        let read: Vec<(usize, Seen)> = if steps.len() == 1 {
            // Waking other threads would take longer.
            let steps = steps.drain(..);
            let read = steps.map(|step| read(&mut Scratch::default(), step));
            read.collect::<Result<_>>()?
        } else {
            let steps = steps.into_par_iter();
            let read = steps.map_init(Scratch::default, read);
            read.collect::<Result<_>>()?
        };
        Ok(self.by_piece(read))
    }

    /// What each piece looks like, from what its steps do.
    fn by_piece(&self, read: Vec<(usize, Seen)>) -> Vec<Seen> {
        let mut pieces = vec![Seen::default(); self.pieces.len()];
        for (piece, seen) in read {
            pieces[piece] = pieces[piece].and(seen);
        }
        pieces
    }

    fn steps<'a, T>(&self, values: &'a mut [T]) -> Vec<Step<'a, T>> {
        let mut rest = values;
        let mut steps = Vec::new();
        for (piece, &Piece { n_values, .. }) in self.pieces.iter().enumerate() {
            let (own, others) = rest.split_at_mut(n_values);
            rest = others;
            let own = own.chunks_mut(self.step).enumerate();
            steps.extend(own.map(|(number, values)| Step {
                piece,
                first: number * self.step,
                values,
            }));
        }
        steps
    }

    /// Reads as many values as the place has.
    fn step(
        &self,
        [piece, first]: [usize; 2],
        place: Place<'_>,
        scratch: &mut Scratch,
    ) -> Result<Seen> {
        let Piece { entry, range, .. } = &self.pieces[piece];
        let start = range.start + (first * self.stored.n_bytes()) as u64;
        let read = |bytes: &mut [u8]| self.archive.read_into(entry, start, bytes);
        let seen = converting::fill(self.stored, place, scratch, read)?;
        let special = seen.special.map(|index| first + index);
        Ok(Seen { special, ..seen })
    }
}
