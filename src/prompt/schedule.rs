//! A1111's prompt editing: `[before:after:when]` and `[one|other]`.
//!
//! Rules: `get_learned_conditioning_prompt_schedules` in AUTOMATIC1111's `modules/prompt_parser.py`,
//! with its grammar read as lark 1.2 does: at top level a group that parses is a group, any other
//! bracket or colon is text; inside a group brackets must match. A `|` outside of an alternation or
//! a `\` with nothing to escape makes the whole prompt literal.

use super::{Note, python};

mod program;

use program::{Op, Program};

/// Which pass of a generation a schedule is for; this decides what its numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The first pass: `0.5` is half of `steps`, `5` is step 5.
    First {
        /// Sampling steps, doubled for a second-order sampler.
        steps: u32,
    },
    /// The hires pass: numbers go on from the first pass, so `1.5` is half of it.
    Hires {
        /// Steps of the first pass.
        base: u32,
        /// Steps of this pass, doubled for a second-order sampler.
        steps: u32,
    },
    /// The option "use old emphasis timelines": below 1 a share of `steps`, from 1 on a step. The
    /// hires pass counts the first pass's steps then, too.
    Old {
        /// Steps of the first pass.
        steps: u32,
    },
}

impl Pass {
    /// The last step of the pass.
    pub fn steps(self) -> u32 {
        match self {
            Pass::First { steps } | Pass::Hires { steps, .. } | Pass::Old { steps } => steps,
        }
    }

    /// The last step of what stands before a number, as the number is written; not yet limited to
    /// the steps there are.
    fn when(self, number: &str) -> Option<f64> {
        let value = python::float(number)?;
        let is_share = number.contains('.');
        let steps = f64::from(self.steps());
        let when = match self {
            Pass::Old { .. } if value < 1.0 => value * steps,
            Pass::First { .. } if is_share => value * steps,
            Pass::Old { .. } | Pass::First { .. } => value,
            Pass::Hires { .. } if is_share => (value - 1.0) * steps,
            Pass::Hires { base, .. } => value - f64::from(base),
        };
        Some(when.trunc())
    }
}

/// One text of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last step, counted from 1, that the grammar means it for. See [`Schedule::at`].
    pub until: u32,
    /// The text; its emphasis is still to be read, in [`super::Dialect::A1111`].
    pub text: String,
}

/// The texts of one prompt, by step.
///
/// ```
/// use sd_conditioner::prompt::schedule::{Pass, Schedule};
/// let schedule = Schedule::parse("a [cat:dog:0.5]", Pass::First { steps: 10 });
/// let texts: Vec<_> = schedule.entries().iter().map(|e| (e.until, e.text.as_str())).collect();
/// assert_eq!(texts, [(5, "a cat"), (10, "a dog")]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    entries: Vec<Entry>,
    notes: Vec<Note>,
}

impl Schedule {
    /// Reads `text` for `pass`. Total: what the grammar refuses is one literal text.
    pub fn parse(text: &str, pass: Pass) -> Schedule {
        match program::compile(text) {
            Ok(program) => Schedule::run(text, &program, pass),
            Err(at) => {
                let message = "A1111's grammar refuses this; nothing of the prompt is scheduled";
                let notes = vec![Note::quirk(at, message)];
                Schedule {
                    entries: vec![Entry {
                        until: pass.steps(),
                        text: text.into(),
                    }],
                    notes,
                }
            }
        }
    }

    fn run(text: &str, program: &Program, pass: Pass) -> Schedule {
        let mut notes = Vec::new();
        let whens = whens(text, program, pass, &mut notes);
        let steps = boundaries(&whens, program, pass.steps());
        let entry = |until| Entry {
            until,
            text: program.at_step(text, until, &whens),
        };
        Schedule {
            entries: steps.into_iter().map(entry).collect(),
            notes,
        }
    }

    /// The texts in order of their last step; never empty. Neighbors can be equal.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What had to be guessed.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// True when the text changes with the step.
    pub fn is_scheduled(&self) -> bool {
        self.entries.len() > 1
    }

    /// The entry for the `calls`-th model call, counted from 0: the first that reaches that far, or
    /// the first of all (`reconstruct_cond_batch`). The first entry thus lasts one call longer than
    /// its number says.
    pub fn at(&self, calls: u32) -> &Entry {
        let entry = self.entries.iter().find(|entry| calls <= entry.until);
        entry.unwrap_or(&self.entries[0])
    }
}

/// For each operation that has a number, the step it switches after.
fn whens(text: &str, program: &Program, pass: Pass, notes: &mut Vec<Note>) -> Vec<f64> {
    let mut when = |op: &Op| match op {
        Op::Switch { number, .. } => {
            let when = pass.when(&text[number.clone()]).unwrap_or(f64::NAN);
            if !when.is_finite() {
                let message = "A1111 fails at a number as large as this";
                notes.push(Note::reference_error(number.clone(), message));
            }
            when.min(f64::from(pass.steps()))
        }
        Op::Text(_) | Op::Jump(_) | Op::Alternate { .. } => f64::NAN,
    };
    program.ops.iter().map(&mut when).collect()
}

/// The steps at which a text may end: the last one, every switch from 1 on, and all of them if
/// anything alternates.
fn boundaries(whens: &[f64], program: &Program, last: u32) -> Vec<u32> {
    if program
        .ops
        .iter()
        .any(|op| matches!(op, Op::Alternate { .. }))
    {
        let first = last.min(1);
        return (first..=last).collect();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 to `last`"
    )]
    let switches = whens
        .iter()
        .filter(|when| **when >= 1.0)
        .map(|when| *when as u32);
    let mut steps: Vec<u32> = switches.chain([last]).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}
