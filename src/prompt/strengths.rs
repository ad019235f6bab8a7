//! Strengths of fragments, of which brackets multiply the last so many again and again.

/// In which precision a reference multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// `float` of Python.
    Double,
    /// `float` of C++.
    Single,
}

impl Precision {
    /// The product; in single precision it is exact in f64 and then rounded once.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    fn multiply(self, values: &mut [f64], factor: f64) {
        match self {
            Precision::Double => values.iter_mut().for_each(|value| *value *= factor),
            Precision::Single => {
                for value in values {
                    *value = f64::from((*value * factor) as f32);
                }
            }
        }
    }
}

/// The strengths in order, neighbors with the same bits kept as one run.
///
/// Every bracket multiplies from some fragment to the end. Fragments that are equal once and
/// multiplied together stay equal, so runs keep deep nesting cheap without changing one product.
pub(super) struct Strengths {
    /// Where each run starts; as long as `values`.
    starts: Vec<usize>,
    values: Vec<f64>,
    len: usize,
    precision: Precision,
}

impl Strengths {
    pub(super) fn new(precision: Precision) -> Strengths {
        Strengths {
            starts: Vec::new(),
            values: Vec::new(),
            len: 0,
            precision,
        }
    }

    pub(super) fn push(&mut self, value: f64) {
        if self.values.last().is_none_or(|last| !is_same(*last, value)) {
            self.starts.push(self.len);
            self.values.push(value);
        }
        self.len += 1;
    }

    /// Multiplies all from the `first`-th on.
    pub(super) fn multiply_from(&mut self, first: usize, factor: f64) {
        if first >= self.len {
            return;
        }
        let index = self.split(first);
        self.precision.multiply(&mut self.values[index..], factor);
        self.join_from(index.saturating_sub(1));
    }

    /// Makes a run start at `first` and returns its index.
    fn split(&mut self, first: usize) -> usize {
        let after = self.starts.partition_point(|start| *start < first);
        if self.starts.get(after) != Some(&first) {
            self.starts.insert(after, first);
            self.values.insert(after, self.values[after - 1]);
        }
        after
    }

    /// Joins runs of the same bits from the `index`-th on.
    fn join_from(&mut self, index: usize) {
        let mut pairs = self.values[index..].windows(2);
        let Some(found) = pairs.position(|pair| is_same(pair[0], pair[1])) else {
            return;
        };
        let from = index + found;
        let starts = self.starts.split_off(from);
        let values = self.values.split_off(from);
        for (start, value) in starts.into_iter().zip(values) {
            if self
                .values
                .get(from..)
                .and_then(<[f64]>::last)
                .is_none_or(|l| !is_same(*l, value))
            {
                self.starts.push(start);
                self.values.push(value);
            }
        }
    }

    /// All strengths, one per push.
    pub(super) fn all(&self) -> impl Iterator<Item = f64> + '_ {
        let ends = self.starts.iter().copied().skip(1).chain([self.len]);
        let runs = self.starts.iter().zip(ends).zip(&self.values);
        runs.flat_map(|((start, end), value)| std::iter::repeat_n(*value, end - start))
    }
}

fn is_same(left: f64, right: f64) -> bool {
    left.to_bits() == right.to_bits()
}
