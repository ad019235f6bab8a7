//! PAIRS → GUIDANCES: many prompts with their negatives, each pair brought to one length.

use std::ops::Range;

use crate::conditioning::Guidance;
use crate::error::Result;
use crate::prompt::Note;

use super::plan::Planned;
use super::{Conditioner, Request, compose, lengths};

/// Pairs that share a forward, collected.
#[derive(Default)]
struct Shared<'a> {
    requests: Vec<Request<'a>>,
    plans: Vec<Vec<Planned>>,
    /// Where the two sides of a pair have no common length.
    notes: Vec<Option<Note>>,
}

impl Conditioner {
    /// Encodes many prompts with their negatives: one forward for each encoder over the distinct
    /// windows of all. Each result is what [`encode_pair`](Self::encode_pair) would give, whatever the
    /// lengths. Prompts that name `LoRA`s are encoded by themselves. Where one pair is refused, all
    /// are.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, Request, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let pair = |positive| [Request::new(positive), Request::new("blurry")];
    /// let both = text.encode_pairs(&[pair("a cat"), pair("a dog")])?;
    /// assert_eq!(both[1].positive().context().dims(), [1, 77, 128]);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn encode_pairs(&self, pairs: &[[Request<'_>; 2]]) -> Result<Vec<Guidance>> {
        let mut shared = Shared::default();
        let mut apart = Vec::with_capacity(pairs.len());
        for [positive, negative] in pairs {
            if positive.named_loras()?.is_empty() {
                shared.add(self, [positive.clone(), negative.clone().as_negative()])?;
                apart.push(None);
            } else {
                apart.push(Some(self.encode_pair(positive.clone(), negative.clone())?));
            }
        }
        let mut together = shared.encode(self)?.into_iter();
        let each = apart.into_iter();
        each.map(|alone| {
            alone
                .or_else(|| together.next())
                .ok_or_else(compose::incomplete)
        })
        .collect()
    }
}

impl<'a> Shared<'a> {
    fn add(&mut self, text: &Conditioner, pair: [Request<'a>; 2]) -> Result<()> {
        let mut plans = text.plan_all(&pair)?;
        let note = lengths::pad_to_each_other(&pair, &mut plans, |request, fill| {
            text.plan(request, fill)
        })?;
        self.requests.extend(pair);
        self.plans.extend(plans);
        self.notes.push(note);
        Ok(())
    }

    fn encode(self, text: &Conditioner) -> Result<Vec<Guidance>> {
        if self.requests.is_empty() {
            return Ok(Vec::new());
        }
        let alone: Vec<Range<usize>> = (0..self.requests.len()).map(|one| one..one + 1).collect();
        let mut sides = text.run(&self.requests, &self.plans, &alone)?.into_iter();
        let positives = self.requests.iter().step_by(2);
        let pairs = positives.zip(&self.notes).map(|(positive, note)| {
            let both = sides.next().zip(sides.next());
            let (first, second) = both.ok_or_else(compose::incomplete)?;
            lengths::join(positive, [first, second], note.as_ref())
        });
        pairs.collect()
    }
}
