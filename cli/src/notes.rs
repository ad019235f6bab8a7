//! What was cut, guessed or reproduced: what it is about, where, and the text that is meant.

use std::fmt;

use sd_conditioner::conditioner::Reading;
use sd_conditioner::prompt::{Note, NoteKind};
use sd_conditioner::{Conditioner, Conditioning, Family};

use crate::job::{Job, Side};
use crate::schedules::PassConditionings;

/// Signs of a text that a note quotes at most.
const QUOTED_AT_MOST: usize = 48;

/// A note of one side of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    side: &'static str,
    note: Note,
    /// What the note's span is a part of.
    text: Option<String>,
    /// True where that is not the text that was typed.
    derived: bool,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note {
            kind: about,
            span,
            message,
        } = &self.note;
        write!(f, "{}: {message} ({}", self.side, about.name())?;
        let meant = self.text.as_deref();
        let meant = meant.and_then(|text| text.get(span.clone()));
        if let Some(meant) = meant.filter(|meant| !meant.is_empty()) {
            write!(f, " at {}..{}: `{}`", span.start, span.end, quoted(meant))?;
        }
        match self.text.as_deref().filter(|_| self.derived) {
            Some(text) => write!(f, " in `{}`)", quoted(text)),
            None => f.write_str(")"),
        }
    }
}

/// The text on one line, its middle left out where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let flat: Vec<char> = text
        .chars()
        .map(|sign| if sign.is_control() { ' ' } else { sign })
        .collect();
    if flat.len() <= QUOTED_AT_MOST {
        return flat.into_iter().collect();
    }
    let half = QUOTED_AT_MOST / 2;
    let (start, end) = (&flat[..half], &flat[flat.len() - half..]);
    start.iter().chain(['…'].iter()).chain(end).collect()
}

/// The notes of a pair or of one side of it, each thing once.
pub(crate) fn of_sides(job: &Job, text: &Conditioner, sides: &[(Side, Conditioning)]) -> Vec<Told> {
    let mut all = Vec::new();
    for (side, made) in sides {
        add(&mut all, &with_texts(job, text, *side, made));
    }
    // That two lengths could not be made one is said of both.
    let mut lengths = all.iter().filter(|told| told.note.kind == NoteKind::Length);
    let first = lengths.next().cloned();
    all.retain(|told| told.note.kind != NoteKind::Length || Some(told) == first.as_ref());
    all
}

fn with_texts(job: &Job, text: &Conditioner, side: Side, made: &Conditioning) -> Vec<Told> {
    if made.notes().is_empty() {
        return Vec::new();
    }
    let readings = text.readings(&job.request(text.family(), side));
    let about = |note: &Note| {
        let of = |reading: &&Reading| reading.notes.contains(note);
        readings
            .iter()
            .find(of)
            .map(|reading| reading.source.clone())
    };
    let notes = made.notes().iter();
    notes
        .map(|note| Told {
            side: side.name(),
            note: note.clone(),
            text: about(note),
            derived: false,
        })
        .collect()
}

/// The notes of schedules, each thing once.
pub(crate) fn of_passes(job: &Job, family: Family, passes: &[PassConditionings]) -> Vec<Told> {
    let mut all = Vec::new();
    for pass in passes {
        for (side, timeline) in &pass.sides {
            let read = crate::editing::read(job, family, *side, pass.pass.pass);
            add(&mut all, &read.map(|read| read.notes).unwrap_or_default());
            for entry in timeline.entries() {
                let notes = entry.conditioning.notes().iter();
                let told = notes.map(|note| Told::of(job, *side, note, &entry.text));
                add(&mut all, &told.collect::<Vec<_>>());
            }
        }
    }
    all
}

impl Told {
    /// A note about a text that may be another one than was typed.
    pub(crate) fn of(job: &Job, side: Side, note: &Note, text: &str) -> Told {
        Told {
            side: side.name(),
            note: note.clone(),
            text: Some(text.to_owned()),
            derived: job.text(side) != Some(text),
        }
    }
}

/// Adds what is not there yet.
pub(crate) fn add(all: &mut Vec<Told>, more: &[Told]) {
    for told in more {
        if !all.contains(told) {
            all.push(told.clone());
        }
    }
}
