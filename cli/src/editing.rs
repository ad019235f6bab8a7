//! A side's texts over the steps of a pass, without encoding them.

use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::prompt::{comments, compose, networks};
use sd_conditioner::{Dialect, Family};

use crate::job::{Job, Side};
use crate::notes::Told;

/// What prompt editing makes of a text.
#[derive(Debug)]
pub(crate) struct Edited {
    pub(crate) parts: Vec<EditedPart>,
    /// What had to be guessed on the way.
    pub(crate) notes: Vec<Told>,
}

/// One prompt of a composition.
#[derive(Debug)]
pub(crate) struct EditedPart {
    pub(crate) weight: f64,
    /// Last step and text.
    pub(crate) entries: Vec<(u32, String)>,
}

/// Reads a side as [`Conditioner::encode_schedule`](sd_conditioner::Conditioner::encode_schedule)
/// does; `None` where there is no text.
pub(crate) fn read(job: &Job, family: Family, side: Side, pass: Pass) -> Option<Edited> {
    let source = job.text(side)?;
    let mut notes = Vec::new();
    let text = match (job.choices().clean_prompt, side) {
        (false, _) => source.to_owned(),
        (true, Side::Negative) => comments::strip(source),
        (true, Side::Positive) => {
            let found = job.request(family, side).network_notes();
            notes.extend(found.iter().map(|note| Told::of(job, side, note, source)));
            networks::extract(&comments::strip(source)).0
        }
    };
    if job.choices().dialect != Dialect::A1111 {
        let entries = vec![(pass.steps(), text)];
        let parts = vec![EditedPart {
            weight: 1.0,
            entries,
        }];
        return Some(Edited { parts, notes });
    }
    let parts = parts(side, &text).into_iter().map(|(part, weight)| {
        let schedule = Schedule::parse(&part, pass);
        let told = schedule.notes().iter();
        notes.extend(told.map(|note| Told::of(job, side, note, &part)));
        let entries = schedule.entries().iter();
        EditedPart {
            weight,
            entries: entries
                .map(|entry| (entry.until, entry.text.clone()))
                .collect(),
        }
    });
    let parts = parts.collect();
    Some(Edited { parts, notes })
}

/// The negative prompt is never split.
fn parts(side: Side, text: &str) -> Vec<(String, f64)> {
    match side {
        Side::Negative => vec![(text.to_owned(), 1.0)],
        Side::Positive => {
            let parts = compose::split(text).into_iter();
            parts.map(|part| (part.text, part.weight.get())).collect()
        }
    }
}
