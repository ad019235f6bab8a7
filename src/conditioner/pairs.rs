//! PAIRS → GUIDANCES: many prompts with their negatives, each pair brought to one length.

use std::ops::Range;

use crate::conditioning::{Guidance, common_length};
use crate::encoder::ClipConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::profile::EqualLengths;
use crate::prompt::Note;
use crate::tokens::{CONTEXT, Chunk};
use crate::weights::{EncoderId, Family};

use super::plan::Planned;
use super::request::OwnedRequest;
use super::{Conditioner, Request, compose, lengths, prompted};

/// A prompt and its negative that were parsed, cut into windows and brought to one length by
/// [`Conditioner::plan_pair`]. What is left to do is the encoders' work. Borrows nothing, and may be
/// made on one thread and encoded on another.
#[must_use]
#[derive(Clone, Debug)]
pub struct PlannedPair {
    requests: [OwnedRequest; 2],
    /// Of each side, for each encoder.
    plans: [Vec<Planned>; 2],
    /// Where the two sides have no common length.
    note: Option<Note>,
    /// What it was planned for.
    towers: Towers,
}

/// The encoders that something was planned for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Towers {
    family: Family,
    encoders: Vec<ClipConfig>,
}

impl Towers {
    /// Where an encoder is in the order of its family.
    pub(super) fn place(&self, encoder: EncoderId) -> Option<usize> {
        self.encoders.iter().position(|one| one.encoder == encoder)
    }

    /// Refuses encoders that it was not planned for.
    pub(super) fn expect(&self, loaded: &Towers) -> Result<()> {
        if self == loaded {
            return Ok(());
        }
        let message = format!("planned for other encoders, of {}", self.family);
        let hint = "plan with the conditioner that encodes, or with another handle of its load";
        Err(Error::new(ErrorKind::Mismatch, message).hint(hint))
    }
}

impl PlannedPair {
    /// The windows that an encoder will be given: those of the texts and those that their emphasis
    /// needs beside them, equal ones as often as they are needed; none for an encoder that the family
    /// does not have. A window of the empty prompt that fills up the shorter side is not among them.
    pub fn windows(&self, encoder: EncoderId) -> impl Iterator<Item = &Chunk> {
        let place = self.towers.place(encoder);
        let sides = self.plans.iter();
        let plans = sides.filter_map(move |side| side.get(place?));
        plans.flat_map(Planned::windows)
    }

    /// How many rows the context of each side will have at most.
    pub fn tokens(&self) -> usize {
        let windows = |plans: &Vec<Planned>| plans.iter().map(|plan| plan.windows).max();
        let rows = self.plans.each_ref().map(windows);
        let [one, two] = rows.map(|windows| windows.unwrap_or(1) * CONTEXT);
        let repeats = self.requests[0].request().rules().equal_lengths == EqualLengths::Repeat;
        let common = common_length(one, two).filter(|_| repeats);
        common.unwrap_or(one.max(two))
    }
}

impl Conditioner {
    /// Encodes many prompts with their negatives: one forward for each encoder over the distinct
    /// windows of all. Each result is what [`encode_pair`](Self::encode_pair) would give, whatever the
    /// lengths. Prompts that name `LoRA`s are encoded by themselves. Where one pair is refused, all
    /// are; if that is for its `LoRA`s, the error says [which one](Error::request).
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
        let mut planned = Vec::with_capacity(pairs.len());
        let mut apart = Vec::with_capacity(pairs.len());
        for (place, [positive, negative]) in pairs.iter().enumerate() {
            let at_this = |error| prompted::at_one(error, place, pairs.len());
            let named = positive.named_loras().map_err(at_this)?;
            if named.is_empty() {
                planned.push(self.planned(positive.clone(), negative.clone())?);
                apart.push(None);
            } else {
                let alone = self.encode_pair(positive.clone(), negative.clone());
                apart.push(Some(alone.map_err(at_this)?));
            }
        }
        let mut together = self.encode_planned(&planned)?.into_iter();
        let each = apart.into_iter();
        each.map(|alone| {
            alone
                .or_else(|| together.next())
                .ok_or_else(compose::incomplete)
        })
        .collect()
    }

    /// Parses and cuts a prompt and its negative, and brings them to one length: everything of
    /// [`encode_pair`](Self::encode_pair) that needs no encoder. A prompt that names `LoRA`s is
    /// refused ([`ErrorKind::Request`]), since they are put on while it is encoded.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let planned = [text.plan_pair("a cat", "blurry")?, text.plan_pair("a dog", "blurry")?];
    /// let both = text.encode_planned(&planned)?;
    /// assert_eq!(both[1].positive().context().dims(), [1, 77, 128]);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn plan_pair<'a>(
        &self,
        positive: impl Into<Request<'a>>,
        negative: impl Into<Request<'a>>,
    ) -> Result<PlannedPair> {
        let positive = positive.into();
        expect_no_loras(
            &positive,
            "`encode_pair` and `encode_pairs` take such prompts",
        )?;
        self.planned(positive, negative.into())
    }

    /// The same for a prompt whose `LoRA`s are on already.
    pub(super) fn planned<'a>(
        &self,
        positive: Request<'a>,
        negative: Request<'a>,
    ) -> Result<PlannedPair> {
        let negative = negative.negative_of(&positive);
        let pair = [positive, negative];
        let mut plans = [self.plan(&pair[0], &[])?, self.plan(&pair[1], &[])?];
        let note = lengths::pad_to_each_other(&pair, &mut plans, |request, fill| {
            self.plan(request, fill)
        })?;
        Ok(PlannedPair {
            requests: pair.each_ref().map(OwnedRequest::of),
            plans,
            note,
            towers: self.towers(),
        })
    }

    /// Encodes what was planned before: one forward for each encoder over the distinct windows of
    /// all pairs. Refuses ([`ErrorKind::Mismatch`]) what was planned for encoders of other shapes; those
    /// of another handle with other `LoRA`s are the same in this.
    pub fn encode_planned<'a>(
        &self,
        pairs: impl IntoIterator<Item = &'a PlannedPair>,
    ) -> Result<Vec<Guidance>> {
        let (mut requests, mut plans, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let towers = self.towers();
        for pair in pairs {
            pair.towers.expect(&towers)?;
            requests.extend(pair.requests.each_ref().map(OwnedRequest::request));
            plans.extend(pair.plans.iter().map(Vec::as_slice));
            notes.push(pair.note.as_ref());
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let alone: Vec<Range<usize>> = (0..requests.len()).map(|one| one..one + 1).collect();
        let mut sides = self.run(&requests, &plans, &alone)?.into_iter();
        let each = requests.iter().step_by(2).zip(notes);
        each.map(|(positive, note)| {
            let both = sides.next().zip(sides.next());
            let (first, second) = both.ok_or_else(compose::incomplete)?;
            lengths::join(positive, [first, second], note)
        })
        .collect()
    }

    /// The encoders, for what is planned for them.
    pub(super) fn towers(&self) -> Towers {
        let placed = self.placed();
        let configs = placed.parts.iter().map(|part| part.clip.config().clone());
        Towers {
            family: self.family(),
            encoders: configs.collect(),
        }
    }
}

/// Refuses a prompt that puts something on while it is encoded.
pub(super) fn expect_no_loras(request: &Request<'_>, hint: &str) -> Result<()> {
    if request.named_loras()?.is_empty() {
        return Ok(());
    }
    let message = "the prompt names LoRAs, which are put on while it is encoded";
    Err(Error::new(ErrorKind::Request, message).hint(hint))
}
