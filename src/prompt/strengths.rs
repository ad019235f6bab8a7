//! Strengths of fragments, of which brackets multiply the last so many again and again.

/// The strengths in order, neighbors with the same bits kept as one run.
///
/// Every bracket multiplies from some fragment to the end. Fragments that are equal once and
/// multiplied together stay equal, so runs keep deep nesting cheap without changing one product.
pub(super) struct Strengths {
    runs: Vec<Run>,
    len: usize,
    multiply: fn(f64, f64) -> f64,
}

#[derive(Clone, Copy)]
struct Run {
    start: usize,
    value: f64,
}

impl Strengths {
    pub(super) fn new(multiply: fn(f64, f64) -> f64) -> Strengths {
        Strengths {
            runs: Vec::new(),
            len: 0,
            multiply,
        }
    }

    pub(super) fn push(&mut self, value: f64) {
        let same = self
            .runs
            .last()
            .is_some_and(|run| run.value.to_bits() == value.to_bits());
        if !same {
            self.runs.push(Run {
                start: self.len,
                value,
            });
        }
        self.len += 1;
    }

    /// Multiplies all from the `first`-th on.
    pub(super) fn multiply_from(&mut self, first: usize, factor: f64) {
        if first >= self.len {
            return;
        }
        let index = self.split(first);
        for run in &mut self.runs[index..] {
            run.value = (self.multiply)(run.value, factor);
        }
        self.join_from(index);
    }

    /// Makes a run start at `first` and returns its index.
    fn split(&mut self, first: usize) -> usize {
        let after = self.runs.partition_point(|run| run.start < first);
        if self.runs.get(after).is_none_or(|run| run.start > first) {
            let value = self.runs[after - 1].value;
            self.runs.insert(
                after,
                Run {
                    start: first,
                    value,
                },
            );
        }
        after
    }

    /// Joins runs of the same bits, looking at the `index`-th and all later ones.
    fn join_from(&mut self, index: usize) {
        let mut kept = index.max(1);
        for next in kept..self.runs.len() {
            let run = self.runs[next];
            if self.runs[kept - 1].value.to_bits() != run.value.to_bits() {
                self.runs[kept] = run;
                kept += 1;
            }
        }
        self.runs.truncate(kept);
    }

    /// All strengths, one per push.
    pub(super) fn values(&self) -> Vec<f64> {
        let ends = self
            .runs
            .iter()
            .skip(1)
            .map(|run| run.start)
            .chain([self.len]);
        let counted = self.runs.iter().zip(ends);
        counted
            .flat_map(|(run, end)| std::iter::repeat_n(run.value, end - run.start))
            .collect()
    }
}
