//! Conditionings by sampling step: what a sampler follows.

use super::Conditioning;

/// When a conditioning is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// A1111's schedules: up to this step, counted from 1 (see [`TimelinePart::at_call`]).
    UntilStep(u32),
    /// `ComfyUI`'s `ConditioningSetTimestepRange`: shares of the whole, 0 to 1.
    Percent {
        /// From here.
        start: f64,
        /// To here.
        end: f64,
    },
}

/// One conditioning and when it is meant.
#[derive(Clone, Debug)]
pub struct TimelineEntry {
    /// When.
    pub span: Span,
    /// The text it is of.
    pub text: String,
    /// What the U-Net takes then.
    pub conditioning: Conditioning,
}

/// One prompt over all steps.
#[derive(Clone, Debug)]
pub struct TimelinePart {
    /// What the guidance of this prompt is multiplied with: the number behind an `AND` prompt.
    pub weight: f64,
    /// In the order of their spans; never empty.
    pub entries: Vec<TimelineEntry>,
}

impl TimelinePart {
    /// The entry for the `calls`-th model call of `steps`, counted from 0.
    ///
    /// A1111 takes the first entry that reaches that far, or the first of all: the first entry thus
    /// lasts one call longer than its number says (`reconstruct_cond_batch`,
    /// `modules/prompt_parser.py`). With shares, the first entry that is meant then.
    pub fn at_call(&self, calls: u32, steps: u32) -> Option<&TimelineEntry> {
        let share = f64::from(calls) / f64::from(steps.max(1));
        let is_meant = |entry: &&TimelineEntry| match entry.span {
            Span::UntilStep(until) => calls <= until,
            Span::Percent { start, end } => (start..=end).contains(&share),
        };
        let found = self.entries.iter().find(is_meant);
        let by_steps = matches!(self.entries.first()?.span, Span::UntilStep(_));
        found.or_else(|| self.entries.first().filter(|_| by_steps))
    }
}

/// Prompts that are composed (`AND`; `ComfyUI`'s Combine), each over all steps.
///
/// The guided prediction is `u + Σ (c - u) · weight · scale` with `u` the negative's.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Never empty.
    pub parts: Vec<TimelinePart>,
}

impl Timeline {
    /// A conditioning that is meant all the time.
    pub fn constant(text: impl Into<String>, conditioning: Conditioning) -> Timeline {
        let whole = Span::Percent {
            start: 0.0,
            end: 1.0,
        };
        Timeline {
            parts: vec![TimelinePart {
                weight: 1.0,
                entries: vec![TimelineEntry {
                    span: whole,
                    text: text.into(),
                    conditioning,
                }],
            }],
        }
    }

    /// The same, meant between two shares of the steps only (`ConditioningSetTimestepRange`).
    #[must_use]
    pub fn between(mut self, start: f64, end: f64) -> Timeline {
        let entries = self.parts.iter_mut().flat_map(|part| &mut part.entries);
        for entry in entries {
            entry.span = Span::Percent { start, end };
        }
        self
    }

    /// All entries of all parts.
    pub fn entries(&self) -> impl Iterator<Item = &TimelineEntry> {
        self.parts.iter().flat_map(|part| &part.entries)
    }
}
