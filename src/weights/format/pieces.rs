//! WHICH BYTES ARE WHICH VALUES. Pieces of tensors are read in steps on all of rayon's threads, and checked
//! and converted while the processor's cache still has them.

use std::ops::Range;

use candle_core::{DType, Device};
use rayon::prelude::*;

use super::archive::{Archive, Entry};
use super::converting::{self, Place, Plain, Scratch, Seen};
use super::decode::Flaw;
use super::stored::Form;
use crate::error::Result;

/// Values that are read at once: they are still in a core's own cache when they are looked at.
pub(super) const STEP: usize = 1 << 17;
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

/// Pieces of one type, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a> {
    all: Vec<Piece<'a>>,
    stored: Plain,
    n_values: usize,
}

impl<'a> Pieces<'a> {
    /// `None` for types that are not read here, and for pieces of several types.
    pub(crate) fn new(pieces: Vec<Piece<'a>>) -> Option<Pieces<'a>> {
        let stored = plain(pieces.first()?.entry)?;
        if !pieces.iter().all(|piece| piece.fits(stored)) {
            return None;
        }
        let add = |sum: usize, piece: &Piece<'_>| sum.checked_add(piece.n_values);
        let n_values = pieces.iter().try_fold(0, add)?;
        Some(Pieces {
            all: pieces,
            stored,
            n_values,
        })
    }

    /// One after the other.
    pub(super) fn all(&self) -> &[Piece<'a>] {
        &self.all
    }

    /// The type of all.
    pub(super) fn stored(&self) -> Plain {
        self.stored
    }

    /// Of all pieces.
    pub(super) fn n_values(&self) -> usize {
        self.n_values
    }

    /// The type that goes to a device for values of the type wanted: a GPU widens many itself.
    pub(super) fn sent_as(&self, want: DType, device: &Device) -> DType {
        let stored = self.stored.dtype();
        let widens = stored.size_in_bytes() < want.size_in_bytes();
        let there = widens && !device.is_cpu() && self.n_values >= WIDENED_THERE;
        if there { stored } else { want }
    }

    /// To be read as values of this type.
    pub(super) fn job(&'a self, archive: &'a Archive, dtype: DType) -> Job<'a> {
        Job {
            seen: vec![Seen::default(); self.all.len()],
            archive,
            pieces: &self.all,
            stored: self.stored,
            step: if self.stored.dtype() == dtype {
                STEP
            } else {
                CONVERTED_STEP
            },
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

/// Pieces to read, and what those look like that were.
pub(super) struct Job<'a> {
    archive: &'a Archive,
    pieces: &'a [Piece<'a>],
    stored: Plain,
    /// Values that are read at once.
    step: usize,
    /// One for each piece.
    seen: Vec<Seen>,
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
    /// Fills a place with the values from this one of all on.
    pub(super) fn fill(&mut self, first: usize, place: Place<'_>) -> Result<()> {
        let read = match place {
            Place::F32(values) => self.run(first, values, |part| Place::F32(part)),
            Place::F16(values) => self.run(first, values, |part| Place::F16(part)),
            Place::Bf16(values) => self.run(first, values, |part| Place::Bf16(part)),
        };
        for (piece, seen) in read? {
            self.seen[piece] = self.seen[piece].and(seen);
        }
        Ok(())
    }

    /// What is wrong with each piece, if anything.
    pub(super) fn flaws(self) -> Vec<Option<Flaw>> {
        self.seen.into_iter().map(Seen::flaw).collect()
    }

    /// What each step looks like, and of which piece it is.
    fn run<T: Send>(
        &self,
        first: usize,
        values: &mut [T],
        place: fn(&mut [T]) -> Place<'_>,
    ) -> Result<Vec<(usize, Seen)>> {
        let read = |scratch: &mut Scratch, step: Step<'_, T>| {
            let seen = self.step([step.piece, step.first], place(step.values), scratch)?;
            Ok((step.piece, seen))
        };
        let mut steps = self.steps(first, values);
        if steps.len() == 1 {
            // Waking other threads would take longer.
            let steps = steps.drain(..);
            return steps
                .map(|step| read(&mut Scratch::default(), step))
                .collect();
        }
        let steps = steps.into_par_iter();
        steps.map_init(Scratch::default, read).collect()
    }

    /// Steps of the pieces' values from the first of these on.
    fn steps<'a, T>(&self, first: usize, values: &'a mut [T]) -> Vec<Step<'a, T>> {
        let mut rest = values;
        let mut skip = first;
        let mut steps = Vec::new();
        for (piece, &Piece { n_values, .. }) in self.pieces.iter().enumerate() {
            let skipped = skip.min(n_values);
            skip -= skipped;
            let count = rest.len().min(n_values - skipped);
            let (own, others) = rest.split_at_mut(count);
            rest = others;
            let own = own.chunks_mut(self.step).enumerate();
            steps.extend(own.map(|(number, values)| Step {
                piece,
                first: skipped + number * self.step,
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
        Ok(seen.behind(first))
    }
}
