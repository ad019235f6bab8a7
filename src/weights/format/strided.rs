//! Values of a strided view, row by row.

use std::convert::Infallible;

/// A view that was checked against the bytes it lies in.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    shape: &'a [usize],
    /// From one value to the next, in values.
    strides: &'a [u64],
    size: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shape: &'a [usize], strides: &'a [u64], size: usize) -> Walk<'a> {
        Walk {
            shape,
            strides,
            size,
        }
    }

    /// From the first value to behind the last.
    pub(super) fn n_bytes(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        let last: usize = self.sides().map(|(side, stride)| (side - 1) * stride).sum();
        (last + 1) * self.size
    }

    /// Fills `to` with the values from byte `from` of the row-by-row order on, each read from its byte of
    /// the span by itself.
    pub(super) fn fill<E>(
        &self,
        from: u64,
        to: &mut [u8],
        mut read: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.size as u64;
        let first = from / size;
        let (mut index, mut at) = self.index(first);
        let mut skip = usize::try_from(from % size).unwrap_or(0);
        let mut written = 0;
        while written < to.len() {
            let count = (self.size - skip).min(to.len() - written);
            read(at * self.size + skip, &mut to[written..written + count])?;
            (written, skip) = (written + count, 0);
            self.step(&mut index, &mut at);
        }
        Ok(())
    }

    /// The same from the span itself.
    pub(super) fn copy(&self, span: &[u8], from: u64, to: &mut [u8]) {
        let Ok(()) = self.fill(from, to, |at, part| {
            part.copy_from_slice(&span[at..at + part.len()]);
            Ok::<_, Infallible>(())
        });
    }

    /// Sides and strides. They fit, because the bytes that they span do.
    fn sides(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let strides = self.strides.iter();
        let strides = strides.map(|stride| usize::try_from(*stride).unwrap_or(0));
        self.shape.iter().copied().zip(strides.collect::<Vec<_>>())
    }

    /// Index in each dimension of the value of this number, and its place.
    fn index(&self, number: u64) -> (Vec<usize>, usize) {
        let (mut rest, mut index, mut at) = (number, Vec::new(), 0);
        for (side, stride) in self.sides().rev() {
            let here = usize::try_from(rest % side.max(1) as u64).unwrap_or(0);
            rest /= side.max(1) as u64;
            at += here * stride;
            index.push(here);
        }
        index.reverse();
        (index, at)
    }

    /// Goes on to the next value; behind the last to the first.
    fn step(&self, index: &mut [usize], at: &mut usize) {
        for ((side, stride), here) in self.shape.iter().zip(self.strides).zip(index).rev() {
            let stride = usize::try_from(*stride).unwrap_or(0);
            *here += 1;
            *at += stride;
            if *here < *side {
                return;
            }
            *at -= *here * stride;
            *here = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Walk;

    /// Two bytes for each value: its number twice.
    fn span(count: u8) -> Vec<u8> {
        (0..count).flat_map(|number| [number, number]).collect()
    }

    fn values(shape: &[usize], strides: &[u64], from: u64, n_bytes: usize) -> Vec<u8> {
        let walk = Walk::new(shape, strides, 2);
        let mut to = vec![0; n_bytes];
        walk.copy(&span(24)[..walk.n_bytes()], from, &mut to);
        to
    }

    #[test]
    fn views() {
        let transposed = [0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5];
        assert_eq!(values(&[3, 2], &[1, 3], 0, 12), transposed);
        assert_eq!(values(&[3, 2], &[1, 3], 5, 4), transposed[5..9]);
        assert_eq!(values(&[2, 2], &[0, 1], 0, 8), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(values(&[2, 2], &[6, 2], 0, 8), [0, 0, 2, 2, 6, 6, 8, 8]);
        assert_eq!(
            values(&[2, 2, 2], &[1, 2, 4], 8, 8),
            [1, 1, 5, 5, 3, 3, 7, 7]
        );
        assert_eq!(Walk::new(&[3, 0], &[1, 1], 4).n_bytes(), 0);
        assert_eq!(Walk::new(&[], &[], 4).n_bytes(), 4);
    }
}
