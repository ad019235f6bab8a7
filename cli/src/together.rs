//! Jobs → what they give; those that can share a forward do, and each fails for itself.

use sd_conditioner::{Conditioner, Family, Guidance, Request, Result};

use crate::job::{Job, Side};
use crate::schedules::{self, PassConditionings};

/// What the U-Net takes for one job.
#[derive(Debug)]
pub(crate) enum Made {
    /// Positive and negative, the same for all steps.
    Pair(Box<Guidance>),
    /// Another text at another step.
    Passes(Vec<PassConditionings>),
}

/// Encodes one job.
pub(crate) fn encode(text: &Conditioner, job: &Job) -> Result<Made> {
    if let Some(steps) = job.steps() {
        return Ok(Made::Passes(schedules::encode(job, steps, text)?));
    }
    let [positive, negative] = sides(text, job);
    let guidance = text.encode_pair(positive, negative)?;
    Ok(Made::Pair(Box::new(guidance)))
}

/// Encodes several jobs; one answer for each, in order. Those that may share a forward do, and in it
/// equal windows are encoded once.
pub(crate) fn encode_all(text: &Conditioner, jobs: &[(&Job, bool)]) -> Vec<Result<Made>> {
    let shared = jobs.iter().filter(|(_, shared)| *shared);
    let pairs: Vec<[Request<'_>; 2]> = shared.map(|(job, _)| sides(text, job)).collect();
    // A batch that fails as a whole is taken apart below, so that each job fails for itself.
    let encoded = text.encode_pairs(&pairs).unwrap_or_default();
    let mut encoded = encoded.into_iter();
    let answers = jobs.iter().map(|(job, shared)| {
        let guidance = shared.then(|| encoded.next()).flatten();
        match guidance {
            Some(guidance) => Ok(Made::Pair(Box::new(guidance))),
            None => encode(text, job),
        }
    });
    answers.collect()
}

fn sides<'a>(text: &Conditioner, job: &'a Job) -> [Request<'a>; 2] {
    Side::BOTH.map(|side| job.request(text.family(), side))
}

/// False for schedules, and for prompts that put `LoRAs` on.
pub(crate) fn can_share(job: &Job) -> bool {
    let request = job.request(Family::Sd1, Side::Positive);
    let named = request.named_loras();
    job.steps().is_none() && named.is_ok_and(|named| named.is_empty())
}
