//! PROMPTS → CONDITIONINGS: many prompts that no negative goes with, planned before they are encoded.

use std::ops::Range;

use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::tokens::{CONTEXT, Chunk};
use crate::weights::EncoderId;

use super::pairs::{self, Towers};
use super::plan::Planned;
use super::request::OwnedRequest;
use super::{Conditioner, Request};

/// A prompt without a negative that was parsed and cut into windows by [`Conditioner::plan_prompt`]. What
/// is left to do is the encoders' work. Borrows nothing, and may be made on one thread and encoded on
/// another.
#[must_use]
#[derive(Clone, Debug)]
pub struct PlannedPrompt {
    request: OwnedRequest,
    /// For each encoder.
    plans: Vec<Planned>,
    towers: Towers,
}

impl PlannedPrompt {
    /// The windows that an encoder will be given: those of the text and those that its emphasis needs
    /// beside them; none for an encoder that the family does not have.
    pub fn windows(&self, encoder: EncoderId) -> impl Iterator<Item = &Chunk> {
        let place = self.towers.place(encoder);
        let plan = place.and_then(|place| self.plans.get(place));
        plan.into_iter().flat_map(Planned::windows)
    }

    /// How many rows the context will have at most.
    pub fn tokens(&self) -> usize {
        let windows = self.plans.iter().map(|plan| plan.windows).max();
        windows.unwrap_or(1) * CONTEXT
    }
}

impl Conditioner {
    /// Parses and cuts a prompt: everything of [`encode`](Self::encode) that needs no encoder. A prompt
    /// that names `LoRA`s is refused ([`ErrorKind::Request`](crate::ErrorKind::Request)), since they are put on
    /// while it is encoded.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let planned = [text.plan_prompt("a cat")?, text.plan_prompt("a dog")?];
    /// let both = text.encode_planned_prompts(&planned)?;
    /// assert_eq!(both[1].context().dims(), [1, 77, 128]);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn plan_prompt<'a>(&self, request: impl Into<Request<'a>>) -> Result<PlannedPrompt> {
        let request = request.into();
        pairs::expect_no_loras(&request, "`encode` and `encode_batch` take such prompts")?;
        Ok(PlannedPrompt {
            plans: self.plan(&request, &[])?,
            request: OwnedRequest::of(&request),
            towers: self.towers(),
        })
    }

    /// Encodes what [`plan_prompt`](Self::plan_prompt) has planned: one forward for each encoder over the
    /// distinct windows of all prompts. Refuses ([`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch)) what was
    /// planned for encoders of other shapes.
    pub fn encode_planned_prompts<'a>(
        &self,
        prompts: impl IntoIterator<Item = &'a PlannedPrompt>,
    ) -> Result<Vec<Conditioning>> {
        let (mut requests, mut plans) = (Vec::new(), Vec::new());
        let towers = self.towers();
        for prompt in prompts {
            prompt.towers.expect(&towers)?;
            requests.push(prompt.request.request());
            plans.push(prompt.plans.as_slice());
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let alone: Vec<Range<usize>> = (0..requests.len()).map(|one| one..one + 1).collect();
        self.run(&requests, &plans, &alone)
    }
}
