//! Runs and their times.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::builder::TypedValueParser;

/// Runs that are not counted: caches, pages and clocks settle.
const WARM_UP: usize = 2;

/// Without a number: as long as this, with so many runs at least and at most.
const LONG_ENOUGH: Duration = Duration::from_secs(3);
const AT_LEAST: usize = 5;
const AT_MOST: usize = 50;

/// How often a stage runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Runs {
    Exactly(usize),
    WhileShort,
}

/// Milliseconds of every run that counts, sorted; at least one.
#[derive(Debug)]
pub(super) struct Times(Vec<f64>);

pub(super) fn parser() -> impl TypedValueParser<Value = usize> {
    let count = clap::value_parser!(u32).range(1..=100_000);
    count.map(|count| count as usize)
}

impl Runs {
    pub(super) fn of(given: Option<usize>) -> Runs {
        given.map_or(Runs::WhileShort, Runs::Exactly)
    }

    fn are_enough(self, done: usize, since: Instant) -> bool {
        match self {
            Runs::Exactly(count) => done >= count,
            Runs::WhileShort => {
                done >= AT_MOST || (done >= AT_LEAST && since.elapsed() >= LONG_ENOUGH)
            }
        }
    }
}

impl Times {
    fn new(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    /// The middle one, or the mean of the two in the middle.
    pub(super) fn median(&self) -> f64 {
        let half = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            f64::midpoint(self.0[half - 1], self.0[half])
        } else {
            self.0[half]
        }
    }

    pub(super) fn least(&self) -> f64 {
        self.0[0]
    }

    pub(super) fn runs(&self) -> usize {
        self.0.len()
    }
}

/// What can be done only once.
pub(super) fn once<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Times)> {
    let start = Instant::now();
    let made = work()?;
    Ok((made, Times::new(vec![milliseconds(start)])))
}

/// `work` is told which run it is, so that no two need be alike.
pub(super) fn many(runs: Runs, work: impl Fn(usize) -> Result<()>) -> Result<Times> {
    for run in 0..WARM_UP {
        work(run)?;
    }
    let (mut times, begun) = (Vec::new(), Instant::now());
    while !runs.are_enough(times.len(), begun) {
        let start = Instant::now();
        work(WARM_UP + times.len())?;
        times.push(milliseconds(start));
    }
    Ok(Times::new(times))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn medians() {
        let odd = Times::new(vec![9.0, 1.0, 2.0]);
        let shown = format!("{} {} {}", odd.median(), odd.least(), odd.runs());
        assert_eq!(shown, "2 1 3");
        let even = Times::new(vec![4.0, 1.0, 2.0, 9.0]);
        assert_eq!(even.median().to_string(), "3");
    }

    #[test]
    fn runs_are_counted_behind_the_warm_up() {
        let seen = RefCell::new(Vec::new());
        let times = many(Runs::Exactly(3), |run| {
            seen.borrow_mut().push(run);
            Ok(())
        });
        assert_eq!(times.unwrap().runs(), 3);
        assert_eq!(*seen.borrow(), [0, 1, 2, 3, 4]);
        let quick = many(Runs::WhileShort, |_| Ok(())).unwrap();
        assert_eq!(quick.runs(), AT_MOST);
    }
}
