//! Jobs → what they give; those that can share a forward do, and each fails for itself.

use sd_conditioner::tokens::Split;
use sd_conditioner::{Conditioner, Guidance, Request, Result};

use crate::job::{Job, Side};
use crate::schedules::{self, PassConditionings};

/// Pairs whose sides have more windows than this are encoded alone, to bound the memory of a batch.
const WINDOWS_TOGETHER: usize = 2;

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

/// Encodes several jobs; one answer for each, in order. Those whose sides have one length anyway
/// share a forward, in which equal texts are encoded once.
pub(crate) fn encode_all(text: &Conditioner, jobs: &[&Job]) -> Vec<Result<Made>> {
    let shared: Vec<bool> = jobs.iter().map(|job| can_share(text, job)).collect();
    let requests = jobs.iter().zip(&shared).filter(|(_, shared)| **shared);
    let requests: Vec<Request<'_>> = requests.flat_map(|(job, _)| sides(text, job)).collect();
    // A batch that fails as a whole is taken apart below, so that each job fails for itself.
    let encoded = text.encode_batch(&requests).unwrap_or_default();
    let mut encoded = encoded.into_iter();
    let answers = jobs.iter().zip(shared).map(|(job, shared)| {
        let pair = shared.then(|| encoded.next().zip(encoded.next())).flatten();
        let pair = pair.and_then(|(positive, negative)| Guidance::new(positive, negative).ok());
        match pair {
            Some(guidance) => Ok(Made::Pair(Box::new(guidance))),
            None => encode(text, job),
        }
    });
    answers.collect()
}

fn sides<'a>(text: &Conditioner, job: &'a Job) -> [Request<'a>; 2] {
    Side::BOTH.map(|side| job.request(text.family(), side))
}

/// True if nothing is done to make the sides equally long, and they are not long.
fn can_share(text: &Conditioner, job: &Job) -> bool {
    let fills = matches!(job.choices().split, Split::Lpw | Split::LpwSdxl);
    // LoRAs of a prompt are on for its negative, too, which only a pair knows.
    let names_loras =
        || !matches!(sides(text, job)[0].named_loras(), Ok(named) if named.is_empty());
    if fills || job.steps().is_some() || names_loras() {
        return false;
    }
    let [positive, negative] = sides(text, job).map(|request| {
        let chunks = text.chunks(request).ok()?;
        Some(chunks.first()?.1.len().get())
    });
    positive.is_some_and(|count| count <= WINDOWS_TOGETHER) && positive == negative
}
