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

#[cfg(test)]
mod tests {
    use sd_conditioner::weights::SyntheticSize;

    use super::*;
    use crate::wishes::Wishes;

    fn job(positive: &str) -> Job {
        let wishes = Wishes {
            positive: Some(positive.to_owned()),
            ..Wishes::default()
        };
        wishes.job().unwrap()
    }

    fn values(made: &Result<Made>) -> Vec<f32> {
        let Ok(Made::Pair(guidance)) = made else {
            panic!("{made:?}");
        };
        let context = guidance.positive().context().flatten_all();
        context.unwrap().to_vec1().unwrap()
    }

    /// A plan is not made again: one that belongs to another job gives what that one asks for.
    #[test]
    fn what_was_planned_is_what_is_encoded() {
        let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 1);
        let text = text.unwrap();
        let [cat, dog] = ["a cat", "a dog"].map(job);
        let plan = plan(&text, &dog).unwrap();
        let made = encode_all(&text, &[(&cat, plan.as_ref()), (&cat, None)]);
        let alone = [&dog, &cat].map(|job| values(&encode(&text, job)));
        assert!(values(&made[0]) == alone[0] && values(&made[1]) == alone[1]);
        assert!(alone[0] != alone[1]);
    }

    /// One plan that does not fit fails the batch, and each job is encoded by itself.
    #[test]
    fn a_batch_that_fails_is_taken_apart() {
        let text = |family| Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 1);
        let (text, other) = (text(Family::Sd1).unwrap(), text(Family::Sd2).unwrap());
        let [cat, dog] = ["a cat", "a dog"].map(job);
        let plans = [plan(&text, &cat).unwrap(), plan(&other, &dog).unwrap()];
        let made = encode_all(
            &text,
            &[(&cat, plans[0].as_ref()), (&dog, plans[1].as_ref())],
        );
        let alone = [&cat, &dog].map(|job| values(&encode(&text, job)));
        assert!(values(&made[0]) == alone[0] && values(&made[1]) == alone[1]);
    }
}
