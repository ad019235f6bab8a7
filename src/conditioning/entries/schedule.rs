//! A1111's schedules as entries with ranges, and back.

use super::{ConditioningList, Entry, PercentRange};
use crate::conditioning::{Span, Timeline, TimelineEntry, TimelinePart};
use crate::error::{Error, ErrorKind, Result};

impl Timeline {
    /// Entries with the ranges in which a sampler of `steps` steps uses each text, and each part's
    /// weight as their strength.
    ///
    /// The n-th model call, from 0, is at the share `n / steps`; ranges end half a step behind the
    /// last call of their text, so that no call is in two. A sampler whose noise levels are not
    /// evenly spaced in timesteps reaches a share earlier or later than A1111 changes the text.
    ///
    /// A blend of entries divides by the sum of the strengths, A1111's `AND` does not: multiply the
    /// guidance scale by [`total_weight`](Self::total_weight).
    pub fn to_list(&self, steps: u32) -> ConditioningList {
        let parts = self.parts.iter();
        parts.flat_map(|part| part_entries(part, steps)).collect()
    }

    /// The sum of the parts' weights.
    pub fn total_weight(&self) -> f64 {
        self.parts.iter().map(|part| part.weight).sum()
    }
}

fn part_entries(part: &TimelinePart, steps: u32) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(part.entries.len());
    let mut from = 0.0;
    for (place, one) in part.entries.iter().enumerate() {
        let (start, end) = match one.span {
            Span::Percent { start, end } => (start, end),
            Span::UntilStep(_) if place + 1 == part.entries.len() => (from, 1.0),
            Span::UntilStep(until) => {
                let end = (f64::from(until) + 0.5) / f64::from(steps.max(1));
                (from, end.min(1.0))
            }
        };
        from = end;
        entries.push(Entry {
            range: Some(PercentRange { start, end }),
            strength: (part.weight.to_bits() != 1.0_f64.to_bits()).then_some(part.weight),
            ..Entry::new(one.conditioning.clone())
        });
    }
    entries
}

impl ConditioningList {
    /// The schedule that these entries are, for a sampler of `steps` steps: entries of one strength
    /// whose ranges follow each other from 0 to 1 become a part. Texts are not known any more and
    /// stay empty. Entries with areas, masks or pictures, and ranges with gaps, are no schedule:
    /// that is an error.
    ///
    /// ```
    /// use sd_conditioner::prompt::schedule::Pass;
    /// use sd_conditioner::{Conditioner, Family, Profile, Request, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let request = Request::new("a [cat:dog:5]").profile(Profile::A1111);
    /// let list = text.encode_schedule(&request, Pass::First { steps: 20 })?.to_list(20);
    /// assert_eq!(list.entries()[0].range().unwrap().end, 0.275);
    /// assert_eq!(list.to_timeline(20)?.parts[0].entries.len(), 2);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn to_timeline(&self, steps: u32) -> Result<Timeline> {
        let mut parts: Vec<TimelinePart> = Vec::new();
        let mut reached = 1.0;
        for (place, entry) in self.entries.iter().enumerate() {
            let range = entry.plain_range().ok_or_else(|| no_schedule(place))?;
            let weight = entry.strength.unwrap_or(1.0);
            if reached >= 1.0 {
                let entries = Vec::new();
                parts.push(TimelinePart { weight, entries });
                reached = 0.0;
            }
            let part = parts.last_mut().filter(|part| same(part.weight, weight));
            let part = part.ok_or_else(|| no_schedule(place))?;
            if !same(range.start.max(0.0), reached) || range.end <= range.start {
                return Err(no_schedule(place));
            }
            reached = range.end;
            let last = last_call(range.end, steps);
            part.entries.push(entry.until_step(last));
        }
        if reached < 1.0 || parts.is_empty() {
            return Err(no_schedule(self.entries.len().saturating_sub(1)));
        }
        Ok(Timeline { parts })
    }
}

impl Entry {
    /// Its range, if it is nothing but a text in time.
    fn plain_range(&self) -> Option<PercentRange> {
        let always = PercentRange {
            start: 0.0,
            end: 1.0,
        };
        let plain = self.area.is_none() && self.mask.is_none() && self.unclip.is_empty();
        plain.then(|| self.range.unwrap_or(always))
    }

    /// What is meant up to a step; its text is not known any more.
    fn until_step(&self, last: u32) -> TimelineEntry {
        TimelineEntry {
            span: Span::UntilStep(last),
            text: String::new(),
            conditioning: self.conditioning.clone(),
        }
    }
}

/// The last call of `steps` within a range that ends here; the last step for the whole.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn last_call(end: f64, steps: u32) -> u32 {
    if end >= 1.0 {
        return steps;
    }
    (end * f64::from(steps)).floor() as u32
}

fn same(one: f64, two: f64) -> bool {
    (one - two).abs() < 1e-9
}

fn no_schedule(place: usize) -> Error {
    let message = format!(
        "entry {place} is no part of a schedule: that has one strength and no area, mask or \
         picture, and its ranges follow each other from 0 to 1"
    );
    Error::new(ErrorKind::Request, message)
}
