//! What was cut, guessed or reproduced: what it is about, where, and the text that is meant.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::Arc;

use sd_conditioner::prompt::{Note, NoteKind};
use sd_conditioner::{Conditioner, Conditioning, Family};

use crate::job::{Job, Side};
use crate::schedules::PassConditionings;

/// Signs of a text that a note quotes at most.
const QUOTED_AT_MOST: usize = 48;

/// Notes that are shown of one job.
const SHOWN_AT_MOST: usize = 50;

/// A note of one side of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    side: &'static str,
    note: Note,
    /// What the note's span is a part of.
    text: Option<Arc<str>>,
    /// True where that is not the text that was typed.
    derived: bool,
}

/// Without the text, which may be long and is the same for many.
impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.side, &self.note, self.derived).hash(state);
    }
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
    let mut all = Collected::default();
    for (side, made) in sides {
        all.add(with_texts(job, text, *side, made));
    }
    // That two lengths could not be made one is said of both.
    let mut met = false;
    let is_first =
        |told: &Told| told.note.kind != NoteKind::Length || !std::mem::replace(&mut met, true);
    all.finish().into_iter().filter(is_first).collect()
}

fn with_texts(job: &Job, text: &Conditioner, side: Side, made: &Conditioning) -> Vec<Told> {
    if made.notes().is_empty() {
        return Vec::new();
    }
    let readings = text.readings(&job.request(text.family(), side));
    let mut sources: HashMap<&Note, Arc<str>> = HashMap::new();
    for reading in readings.iter().rev() {
        let source: Arc<str> = reading.source.as_str().into();
        sources.extend(reading.notes.iter().map(|note| (note, source.clone())));
    }
    let notes = made.notes().iter();
    notes
        .map(|note| Told {
            side: side.name(),
            note: note.clone(),
            text: sources.get(note).cloned(),
            derived: false,
        })
        .collect()
}

/// The notes of schedules, each thing once.
pub(crate) fn of_passes(job: &Job, family: Family, passes: &[PassConditionings]) -> Vec<Told> {
    let mut all = Collected::default();
    for pass in passes {
        for (side, timeline) in &pass.sides {
            let read = crate::editing::read(job, family, *side, pass.pass.pass);
            all.add(read.map(|read| read.notes).unwrap_or_default());
            for entry in timeline.entries() {
                let (notes, text) = (
                    entry.conditioning.notes().iter(),
                    entry.text.as_str().into(),
                );
                all.add(notes.map(|note| Told::of(job, *side, note, &text)));
            }
        }
    }
    all.finish()
}

/// As many of these as a person reads, and how many more there are.
pub(crate) fn shown(told: &[Told]) -> Vec<String> {
    let some = told.iter().take(SHOWN_AT_MOST).map(ToString::to_string);
    let more = told.len().saturating_sub(SHOWN_AT_MOST);
    let rest = (more > 0).then(|| format!("and {more} more notes of this kind or another"));
    some.chain(rest).collect()
}

impl Told {
    /// A note about a text that may be another one than was typed.
    pub(crate) fn of(job: &Job, side: Side, note: &Note, text: &Arc<str>) -> Told {
        Told {
            side: side.name(),
            note: note.clone(),
            text: Some(text.clone()),
            derived: job.text(side) != Some(&**text),
        }
    }
}

/// Notes in the order in which they came, each once.
#[derive(Default)]
pub(crate) struct Collected {
    all: Vec<Told>,
    /// Hashes: a prompt of a megabyte may have a million notes.
    met: HashSet<u64>,
    by: RandomState,
}

impl Collected {
    pub(crate) fn add(&mut self, more: impl IntoIterator<Item = Told>) {
        for told in more {
            if self.met.insert(self.by.hash_one(&told)) {
                self.all.push(told);
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<Told> {
        self.all
    }
}
