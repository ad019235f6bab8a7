//! Encoders with the `LoRAs` that jobs ask for. Those of the last job are kept, and jobs that ask for
//! the same ones are encoded together.

use std::cell::RefCell;

use sd_conditioner::weights::{LoraReport, WeightedLora};
use sd_conditioner::{Conditioner, Error, Result};

use crate::job::{Job, Side};
use crate::loras::LoraFile;
use crate::together::{self, Made, Planned};

/// Loaded encoders, and what was made of them last.
#[derive(Debug)]
pub(crate) struct Wardrobe {
    loaded: Conditioner,
    last: RefCell<Option<(Vec<LoraFile>, Conditioner)>>,
}

/// A LoRA of a job, and what becomes of it.
pub(crate) type Worn = (WeightedLora, LoraReport);

/// Everything that a job puts on, those that its prompt names behind the others.
pub(crate) fn worn(text: &Conditioner, job: &Job) -> Result<Vec<Worn>> {
    let request = job.request(text.family(), Side::Positive);
    let all = [job.loras(), &request.named_loras()?].concat();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let reports = text.report_loras(&all)?;
    Ok(all.into_iter().zip(reports).collect())
}

impl Wardrobe {
    pub(crate) fn new(loaded: Conditioner) -> Wardrobe {
        Wardrobe {
            loaded,
            last: RefCell::new(None),
        }
    }

    /// The encoders as they were loaded.
    pub(crate) fn loaded(&self) -> &Conditioner {
        &self.loaded
    }

    /// Encodes one job.
    pub(crate) fn encode(&self, job: &Job) -> Result<Made> {
        together::encode(&self.dressed(job)?, job)
    }

    /// Encodes several jobs; one answer for each, in order. Jobs of equal files share encoders, and
    /// those that are on already come first.
    pub(crate) fn encode_all(&self, jobs: &[Planned<'_>]) -> Vec<Result<Made>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let files = |place: usize| jobs[place].0.lora_files().unwrap_or_default();
        for place in 0..jobs.len() {
            let same = |group: &&mut Vec<usize>| files(group[0]) == files(place);
            match groups.iter_mut().find(same) {
                Some(group) => group.push(place),
                None => groups.push(vec![place]),
            }
        }
        groups.sort_by_key(|group| !self.has_on(files(group[0])));
        let mut made: Vec<(usize, Result<Made>)> = Vec::new();
        for group in groups {
            let of_group: Vec<Planned<'_>> = group.iter().map(|place| jobs[*place]).collect();
            made.extend(group.into_iter().zip(self.encode_alike(&of_group)));
        }
        made.sort_by_key(|(place, _)| *place);
        made.into_iter().map(|(_, made)| made).collect()
    }

    /// Jobs of equal files.
    fn encode_alike(&self, jobs: &[Planned<'_>]) -> Vec<Result<Made>> {
        match self.dressed(jobs[0].0) {
            Ok(text) => together::encode_all(&text, jobs),
            // An error has no copies, and what fails here fails quickly.
            Err(_) => jobs.iter().map(|(job, _)| self.encode(job)).collect(),
        }
    }

    fn dressed(&self, job: &Job) -> Result<Conditioner, Error> {
        let files = job.lora_files().unwrap_or_default();
        if files.is_empty() {
            return Ok(self.loaded.clone());
        }
        if let Some((_, text)) = self.last.borrow().as_ref().filter(|(on, _)| on == files) {
            return Ok(text.clone());
        }
        // Two sets at a time would take the memory of both.
        self.last.replace(None);
        let text = self.loaded.with_loras(job.loras())?;
        self.last.replace(Some((files.to_vec(), text.clone())));
        Ok(text)
    }

    fn has_on(&self, files: &[LoraFile]) -> bool {
        let last = self.last.borrow();
        last.as_ref().is_some_and(|(on, _)| on == files)
    }
}
