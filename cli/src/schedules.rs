//! Prompt editing and `AND`: the conditionings of a job by sampling step, and how files tell of them.

use sd_conditioner::conditioning::Span;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::{Conditioner, Result, Timeline};
use serde_json::{Value, json};

use crate::job::{Job, Side};
use crate::names;

/// The steps of a generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    first: u32,
    hires: Option<u32>,
}

/// One pass of a generation, and how files call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedPass {
    pub(crate) pass: Pass,
    /// What stands before the names of its tensors.
    pub(crate) prefix: &'static str,
    /// The key of its metadata.
    pub(crate) key: &'static str,
}

impl Steps {
    /// What was asked for, checked; `None` where nothing was.
    pub(crate) fn of(first: Option<u32>, hires: Option<u32>) -> Result<Option<Steps>, String> {
        let checked = |key: &str, steps: Option<u32>| {
            let steps = steps.map(names::n_steps).transpose();
            steps.map_err(|error| format!("`{key}`: {error}"))
        };
        let (first, hires) = (checked("steps", first)?, checked("hires_steps", hires)?);
        match (first, hires) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("`hires_steps` needs `steps`".to_owned()),
            (Some(first), hires) => Ok(Some(Steps { first, hires })),
        }
    }

    /// The first pass, and the hires pass if there is one.
    pub(crate) fn passes(self) -> impl Iterator<Item = NamedPass> {
        let first = NamedPass {
            pass: Pass::First { steps: self.first },
            prefix: "",
            key: "schedule",
        };
        let hires = self.hires.map(|steps| NamedPass {
            pass: Pass::Hires {
                base: self.first,
                steps,
            },
            prefix: "hires.",
            key: "hires_schedule",
        });
        std::iter::once(first).chain(hires)
    }
}

impl NamedPass {
    /// How many steps it has.
    pub(crate) fn steps(self) -> u32 {
        match self.pass {
            Pass::First { steps } | Pass::Hires { steps, .. } | Pass::Old { steps } => steps,
        }
    }
}

/// What the U-Net takes over the steps of one pass.
#[derive(Debug)]
pub(crate) struct PassConditionings {
    pub(crate) pass: NamedPass,
    /// Positive and negative, or one of them.
    pub(crate) sides: Vec<(Side, Timeline)>,
}

/// Encodes the job's sides for every pass.
pub(crate) fn encode(
    job: &Job,
    steps: Steps,
    text: &Conditioner,
) -> Result<Vec<PassConditionings>> {
    let [positive, negative] = Side::BOTH.map(|side| job.request(text.family(), side));
    let passes = steps.passes().map(|pass| {
        let timelines = match job.sides() {
            [_] => vec![text.encode_schedule(&positive, pass.pass)?],
            _ => text
                .encode_schedule_pair(&positive, &negative, pass.pass)?
                .into(),
        };
        let sides = job.sides().iter().copied();
        Ok(PassConditionings {
            pass,
            sides: sides.zip(timelines).collect(),
        })
    });
    passes.collect()
}

impl PassConditionings {
    /// JSON that says which numbered entry is meant when.
    pub(crate) fn metadata(&self) -> Value {
        let mut said = json!({ "steps": self.pass.steps() });
        for (side, timeline) in &self.sides {
            said[side.name()] = parts(timeline).into();
        }
        said
    }
}

/// Entries are numbered through the parts of one side.
fn parts(timeline: &Timeline) -> Vec<Value> {
    let mut numbers = 0_usize..;
    let parts = timeline.parts.iter().map(|part| {
        let entries = part.entries.iter().zip(numbers.by_ref());
        let entries = entries.map(|(entry, index)| {
            let until = match entry.span {
                Span::UntilStep(step) => Some(step),
                Span::Percent { .. } => None,
            };
            json!({ "index": index, "until_step": until, "text": entry.text })
        });
        let entries: Vec<Value> = entries.collect();
        json!({ "weight": part.weight, "entries": entries })
    });
    parts.collect()
}
