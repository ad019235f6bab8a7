//! A side's texts over the steps of a pass, without encoding them.

use sd_conditioner::profile::TakenOut;
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
    let (text, notes) = cleaned(job, family, side)?;
    if job.choices().dialect != Dialect::A1111 {
        let parts = vec![EditedPart {
            weight: 1.0,
            entries: vec![(pass.steps(), text)],
        }];
        return Some(Edited { parts, notes });
    }
    let parts = Vec::new();
    let mut edited = Edited { parts, notes };
    for (part, weight) in parts_of(side, &text) {
        let schedule = Schedule::parse(&part, pass);
        let (told, part) = (schedule.notes().iter(), part.as_str().into());
        let told = told.map(|note| Told::of(job, side, note, &part));
        edited.notes.extend(told);
        let entries = schedule.entries().iter();
        let entries = entries.map(|entry| (entry.until, entry.text.clone()));
        let entries = entries.collect();
        edited.parts.push(EditedPart { weight, entries });
    }
    Some(edited)
}

/// The text without comments and what names networks, where the choices want it so, and what that had
/// to guess.
fn cleaned(job: &Job, family: Family, side: Side) -> Option<(String, Vec<Told>)> {
    let source = job.text(side)?;
    if job.choices().taken_out != TakenOut::CommentsAndNetworks {
        return Some((source.to_owned(), Vec::new()));
    }
    let (stripped, request) = (comments::strip(source), job.request(family, side));
    // A negative prompt keeps what names networks.
    let (text, request) = match side {
        Side::Negative => (stripped, request.as_negative()),
        Side::Positive => (networks::extract(&stripped).0, request),
    };
    let (found, source) = (request.network_notes(), source.into());
    let told = found.iter().map(|note| Told::of(job, side, note, &source));
    Some((text, told.collect()))
}

/// The negative prompt is never split.
fn parts_of(side: Side, text: &str) -> Vec<(String, f64)> {
    match side {
        Side::Negative => vec![(text.to_owned(), 1.0)],
        Side::Positive => {
            let parts = compose::split(text).into_iter();
            parts.map(|part| (part.text, part.weight.get())).collect()
        }
    }
}
