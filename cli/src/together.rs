//! Jobs → what they give; those that can share a forward do, and each fails for itself.

use sd_conditioner::conditioner::PlannedPair;
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

/// A job, and its plan if it can share a forward.
pub(crate) type Planned<'a> = (&'a Job, Option<&'a PlannedPair>);

/// Encodes several jobs; one answer for each, in order. Those that were planned share a forward, in
/// which equal windows are encoded once, and are not planned again.
pub(crate) fn encode_all(text: &Conditioner, jobs: &[Planned<'_>]) -> Vec<Result<Made>> {
    let planned = jobs.iter().filter_map(|(_, plan)| *plan);
    // A batch that fails as a whole is taken apart below, so that each job fails for itself.
    let encoded = text.encode_planned(planned).unwrap_or_default();
    let mut encoded = encoded.into_iter();
    let answers = jobs.iter().map(|(job, plan)| {
        let guidance = plan.and_then(|_| encoded.next());
        match guidance {
            Some(guidance) => Ok(Made::Pair(Box::new(guidance))),
            None => encode(text, job),
        }
    });
    answers.collect()
}

/// Everything of a job that needs no encoder; `None` for one that is encoded by itself.
pub(crate) fn plan(text: &Conditioner, job: &Job) -> Result<Option<PlannedPair>> {
    if !can_share(job) {
        return Ok(None);
    }
    let [positive, negative] = sides(text, job);
    text.plan_pair(positive, negative).map(Some)
}

fn sides<'a>(text: &Conditioner, job: &'a Job) -> [Request<'a>; 2] {
    Side::BOTH.map(|side| job.request(text.family(), side))
}

/// False for schedules, and for prompts that put `LoRAs` on.
fn can_share(job: &Job) -> bool {
    let request = job.request(Family::Sd1, Side::Positive);
    let named = request.named_loras();
    job.steps().is_none() && named.is_ok_and(|named| named.is_empty())
}
