//! Jobs → what they give; those that can share a forward do, and each fails for itself.

use sd_conditioner::conditioner::{PlannedPair, PlannedPrompt};
use sd_conditioner::tokens::Chunk;
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Conditioner, Conditioning, Family, Guidance, Request, Result};

use crate::job::{Job, Side};
use crate::schedules::{self, PassConditionings};

/// What the U-Net takes for one job.
#[derive(Debug)]
pub(crate) enum Made {
    /// Positive and negative, or one of them; the same for all steps.
    Sides(Vec<(Side, Conditioning)>),
    /// Another text at another step.
    Passes(Vec<PassConditionings>),
}

/// Encodes one job.
pub(crate) fn encode(text: &Conditioner, job: &Job) -> Result<Made> {
    if let Some(steps) = job.steps() {
        return Ok(Made::Passes(schedules::encode(job, steps, text)?));
    }
    match requests(text, job) {
        Requests::Pair([positive, negative]) => Ok(text.encode_pair(positive, negative)?.into()),
        Requests::Alone(side, request) => Ok(Made::Sides(vec![(side, text.encode(request)?)])),
    }
}

impl From<Guidance> for Made {
    fn from(guidance: Guidance) -> Made {
        let [positive, negative] = [guidance.positive(), guidance.negative()].map(Clone::clone);
        Made::Sides(vec![(Side::Positive, positive), (Side::Negative, negative)])
    }
}

/// Everything of a job that needs no encoder.
#[derive(Debug)]
pub(crate) enum Plan {
    Pair(Box<PlannedPair>),
    Alone(Side, Box<PlannedPrompt>),
}

impl Plan {
    /// The windows that an encoder will be given.
    pub(crate) fn windows(&self, encoder: EncoderId) -> Box<dyn Iterator<Item = &Chunk> + '_> {
        match self {
            Plan::Pair(pair) => Box::new(pair.windows(encoder)),
            Plan::Alone(_, prompt) => Box::new(prompt.windows(encoder)),
        }
    }

    /// Rows of the contexts of all sides, at most.
    pub(crate) fn rows(&self) -> Vec<usize> {
        match self {
            Plan::Pair(pair) => vec![pair.tokens(); 2],
            Plan::Alone(_, prompt) => vec![prompt.tokens()],
        }
    }

    fn pair(&self) -> Option<&PlannedPair> {
        match self {
            Plan::Pair(pair) => Some(pair),
            Plan::Alone(..) => None,
        }
    }

    fn alone(&self) -> Option<&PlannedPrompt> {
        match self {
            Plan::Pair(_) => None,
            Plan::Alone(_, prompt) => Some(prompt),
        }
    }
}

/// A job, and its plan if it can share a forward.
pub(crate) type Planned<'a> = (&'a Job, Option<&'a Plan>);

/// Encodes several jobs; one answer for each, in order. Those that were planned share a forward, in
/// which equal windows are encoded once, and are not planned again.
pub(crate) fn encode_all(text: &Conditioner, jobs: &[Planned<'_>]) -> Vec<Result<Made>> {
    let plans = || jobs.iter().filter_map(|(_, plan)| *plan);
    // A batch that fails as a whole is taken apart below, so that each job fails for itself.
    let pairs = text.encode_planned(plans().filter_map(Plan::pair));
    let alone = text.encode_planned_prompts(plans().filter_map(Plan::alone));
    let mut pairs = pairs.unwrap_or_default().into_iter();
    let mut alone = alone.unwrap_or_default().into_iter();
    let answers = jobs.iter().map(|(job, plan)| {
        let made = match plan {
            Some(Plan::Pair(_)) => pairs.next().map(Made::from),
            Some(Plan::Alone(side, _)) => alone.next().map(|one| Made::Sides(vec![(*side, one)])),
            None => None,
        };
        made.map_or_else(|| encode(text, job), Ok)
    });
    answers.collect()
}

/// Everything of a job that needs no encoder; `None` for one that is encoded by itself.
pub(crate) fn plan(text: &Conditioner, job: &Job) -> Result<Option<Plan>> {
    if !can_share(job) {
        return Ok(None);
    }
    Ok(Some(match requests(text, job) {
        Requests::Pair([positive, negative]) => {
            Plan::Pair(Box::new(text.plan_pair(positive, negative)?))
        }
        Requests::Alone(side, request) => Plan::Alone(side, Box::new(text.plan_prompt(request)?)),
    }))
}

/// What the encoders are asked for.
enum Requests<'a> {
    Pair([Request<'a>; 2]),
    Alone(Side, Request<'a>),
}

fn requests<'a>(text: &Conditioner, job: &'a Job) -> Requests<'a> {
    let request = |side| job.request(text.family(), side);
    match job.sides() {
        [side] => Requests::Alone(*side, request(*side)),
        _ => Requests::Pair(Side::BOTH.map(request)),
    }
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
    use crate::job::Only;
    use crate::wishes::Wishes;

    fn job(positive: &str) -> Job {
        let wishes = Wishes {
            positive: Some(positive.to_owned()),
            ..Wishes::default()
        };
        wishes.job().unwrap()
    }

    fn values(made: &Result<Made>) -> Vec<f32> {
        let Ok(Made::Sides(sides)) = made else {
            panic!("{made:?}");
        };
        let context = sides[0].1.context().flatten_all();
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

    /// Jobs of one side lie between those of two, and each has its own answer.
    #[test]
    fn sides_alone_keep_their_places() {
        let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 1);
        let text = text.unwrap();
        let jobs = ["a cat", "a dog", "a bird", "fog"].map(job);
        let [cat, dog, bird, fog] = jobs;
        let jobs = [
            cat,
            dog.with_only(Some(Only::Positive)),
            bird,
            fog.with_only(Some(Only::Positive)),
        ];
        let plans = jobs.each_ref().map(|job| plan(&text, job).unwrap());
        let planned = jobs.iter().zip(plans.iter().map(Option::as_ref));
        let made = encode_all(&text, &planned.collect::<Vec<_>>());
        for (job, made) in jobs.iter().zip(&made) {
            assert!(values(made) == values(&encode(&text, job)));
            let Ok(Made::Sides(sides)) = made else {
                panic!("{made:?}");
            };
            assert_eq!(sides.len(), job.sides().len());
        }
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
