//! A1111's prompt editing: `[before:after:when]` and `[one|other]`.
//!
//! Rules: `get_learned_conditioning_prompt_schedules` in AUTOMATIC1111's `modules/prompt_parser.py`,
//! with its grammar read as lark 1.2 does: at top level a group that parses is a group, any other
//! bracket or colon is text; inside a group brackets must match. A `|` outside of an alternation or
//! a `\` with nothing to escape makes the whole prompt literal.

use super::{Note, NoteKind, python};
use crate::error::{Error, ErrorKind, Result};

mod program;

use program::{Op, Program};

/// The most bytes that all texts of one schedule may have, counted as if each was as long as the whole prompt: a
/// text of a few KiB becomes one for each step. A schedule of more is not read ([`Schedule::expect_all`]).
pub const BYTES_AT_MOST: usize = 64 << 20;

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
    /// What its texts may need, whether they were made or not.
    bytes: usize,
}

impl Schedule {
    /// Reads `text` for `pass`. Total: what the grammar refuses is one literal text, and so is what would be
    /// more than [`BYTES_AT_MOST`].
    pub fn parse(text: &str, pass: Pass) -> Schedule {
        match program::compile(text) {
            Ok(program) => Schedule::run(text, &program, pass),
            Err(at) => {
                let message = "A1111's grammar refuses this; nothing of the prompt is scheduled";
                Schedule::literal(text, pass, Note::quirk(at, message))
            }
        }
    }

    fn literal(text: &str, pass: Pass, note: Note) -> Schedule {
        Schedule {
            entries: vec![Entry {
                until: pass.steps(),
                text: text.into(),
            }],
            notes: vec![note],
            bytes: text.len(),
        }
    }

    fn run(text: &str, program: &Program, pass: Pass) -> Schedule {
        let mut notes = Vec::new();
        let whens = whens(text, program, pass, &mut notes);
        let ends = Ends::of(&whens, program, pass.steps());
        let each = text.len() + size_of::<Entry>();
        let bytes = ends.count().saturating_mul(each);
        if ends.count() > 1 && bytes > BYTES_AT_MOST {
            let note = Note {
                kind: NoteKind::Cut,
                span: 0..text.len(),
                message: too_large(bytes),
            };
            let literal = Schedule::literal(text, pass, note);
            return Schedule { bytes, ..literal };
        }
        let entry = |until| Entry {
            until,
            text: program.at_step(text, until, &whens),
        };
        Schedule {
            entries: ends.steps().map(entry).collect(),
            notes,
            bytes,
        }
    }

    /// Whether the text changes with the step, without making its texts.
    pub(crate) fn is_needed(text: &str, pass: Pass) -> bool {
        program::compile(text).is_ok_and(|program| {
            let whens = whens(text, &program, pass, &mut Vec::new());
            Ends::of(&whens, &program, pass.steps()).count() > 1
        })
    }

    /// Refuses a schedule that was not read because its texts would be too large.
    pub fn expect_all(&self) -> Result<()> {
        let is_literal = self.entries.len() == 1;
        if is_literal && self.bytes > self.entries[0].text.len() + size_of::<Entry>() {
            return expect_bytes(self.bytes);
        }
        Ok(())
    }

    /// What its texts may need beside the prompt's own.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

/// Refuses so many bytes of texts.
pub(crate) fn expect_bytes(bytes: usize) -> Result<()> {
    if bytes <= BYTES_AT_MOST {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Request, too_large(bytes));
    Err(error.hint("take a shorter prompt, fewer steps or fewer brackets that change it"))
}

fn too_large(bytes: usize) -> String {
    format!(
        "the steps of this schedule need {} MiB of text; {} are the most",
        bytes >> 20,
        BYTES_AT_MOST >> 20
    )
}

/// The steps at which a text may end.
enum Ends {
    /// All of them, from the first to the last: something alternates.
    Each(u32, u32),
    /// Every switch from 1 on, and the last one; ascending.
    Some(Vec<u32>),
}

impl Ends {
    fn of(whens: &[f64], program: &Program, last: u32) -> Ends {
        let mut ops = program.ops.iter();
        if ops.any(|op| matches!(op, Op::Alternate { .. })) {
            return Ends::Each(last.min(1), last);
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
        Ends::Some(steps)
    }

    fn count(&self) -> usize {
        match self {
            Ends::Each(first, last) => (last - first) as usize + 1,
            Ends::Some(steps) => steps.len(),
        }
    }

    fn steps(&self) -> impl Iterator<Item = u32> {
        let (range, list) = match self {
            Ends::Each(first, last) => (Some(*first..=*last), &[][..]),
            Ends::Some(steps) => (None, steps.as_slice()),
        };
        range.into_iter().flatten().chain(list.iter().copied())
    }
}
