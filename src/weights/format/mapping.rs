//! STORED BYTES, WHERE THEY ARE: looked at as all others are, and left in the file.

use rayon::prelude::*;

use super::archive::Archive;
use super::converting::{Seen, look};
use super::decode::Flaw;
use super::pieces::{Pieces, STEP};
use crate::mapped::{Mapped, Unchanging};

impl Pieces<'_> {
    /// All of them as one matrix, if that is how they lie in the file, and what is wrong with each piece, if
    /// anything. `None` where they do not, or where the system does not map the file.
    pub(crate) fn map(
        &self,
        archive: &Archive,
        shape: [usize; 2],
        word: Unchanging,
    ) -> Option<(Mapped, Vec<Option<Flaw>>)> {
        let (first, start) = (self.all().first()?, self.unbroken()?);
        let file = archive.mapped(first.entry, word)?;
        let matrix = Mapped::new(file, start, shape, self.stored().dtype())?;
        let mut rest = matrix.bytes();
        let mut flaws = Vec::with_capacity(self.all().len());
        for piece in self.all() {
            let n_bytes = piece.n_values.checked_mul(self.stored().n_bytes())?;
            let (bytes, others) = rest.split_at_checked(n_bytes)?;
            rest = others;
            flaws.push(self.look(bytes).flaw());
        }
        rest.is_empty().then_some((matrix, flaws))
    }

    /// Where in their file they begin, if each begins where the one before it ends.
    fn unbroken(&self) -> Option<u64> {
        let place = |piece: &super::pieces::Piece<'_>| {
            let (entry, range) = (piece.entry, &piece.range);
            let [start, end] = [range.start, range.end].map(|at| entry.start.checked_add(at));
            Some((entry.part, start?, end?))
        };
        let mut pieces = self.all().iter().map(place);
        let (part, start, mut end) = pieces.next()??;
        for piece in pieces {
            let (other, next, its_end) = piece?;
            if (other, next) != (part, end) {
                return None;
            }
            end = its_end;
        }
        Some(start)
    }

    fn look(&self, bytes: &[u8]) -> Seen {
        let (stored, size) = (self.stored(), self.stored().n_bytes());
        let steps = bytes.par_chunks(STEP * size).enumerate();
        let each = steps.map(|(number, step)| look(stored, step).behind(number * STEP));
        each.reduce(Seen::default, Seen::and)
    }
}
