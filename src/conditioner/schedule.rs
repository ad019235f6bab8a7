//! SCHEDULE → TIMELINE: prompt editing and `AND`, each distinct text encoded once.

use std::collections::HashMap;

use crate::conditioning::{Conditioning, Span, Timeline, TimelineEntry, TimelinePart};
use crate::error::Result;
use crate::profile::TakenOut;
use crate::prompt::compose::{self, ComposedPrompt};
use crate::prompt::schedule::{self, Pass, Schedule};
use crate::prompt::{Dialect, Note, NoteKind, Strength};

use super::bounds::expect_windows;
use super::plan::Planned as Plan;
use super::prepare::Prepared;
use super::{Conditioner, Request};

/// A prompt of a composition: weight, and its texts by step.
struct Planned {
    weight: f64,
    /// Last step, place in the list of distinct texts.
    entries: Vec<(u32, usize)>,
}

impl Conditioner {
    /// Encodes a prompt with A1111's prompt editing (`[from:to:0.5]`, `[one|other]`) for a pass of
    /// a generation; a positive prompt is split at `AND`, too. All texts are encoded in one batch,
    /// each distinct one once, and those of one `AND` part as one call of the tool. In dialects
    /// without schedules the text is one entry for all steps.
    ///
    /// SDXL's second text, if there is one, is not scheduled.
    ///
    /// ```
    /// use sd_conditioner::prompt::schedule::Pass;
    /// use sd_conditioner::{Conditioner, Family, Profile, Request, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let request = Request::new("a [cat:dog:0.5] AND a hat:0.6").profile(Profile::A1111);
    /// let timeline = text.encode_schedule(&request, Pass::First { steps: 20 })?;
    /// assert_eq!(timeline.parts.len(), 2);
    /// assert_eq!(timeline.parts[0].entries[1].text, "a dog");
    /// assert_eq!(timeline.parts[1].weight, 0.6);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn encode_schedule(&self, request: &Request<'_>, pass: Pass) -> Result<Timeline> {
        let request = std::slice::from_ref(request);
        let prompted = self.prompted(&request[0])?;
        prompted.dressed(request, |text, request| text.schedule(&request[0], pass))
    }

    /// Both sides of a generation. `LoRA`s that the prompt names are on for both, and the embeddings
    /// that come with them may be named in both. What the negative does not set itself is the
    /// prompt's, as with [`encode_pair`](Self::encode_pair).
    pub fn encode_schedule_pair<'a>(
        &self,
        positive: &Request<'a>,
        negative: &Request<'a>,
        pass: Pass,
    ) -> Result<[Timeline; 2]> {
        let pair = [positive.clone(), negative.clone().negative_of(positive)];
        self.prompted(positive)?.dressed(&pair, |text, pair| {
            let one = |request| text.schedule(request, pass);
            Ok([one(&pair[0])?, one(&pair[1])?])
        })
    }

    /// With the encoders as they are.
    fn schedule(&self, request: &Request<'_>, pass: Pass) -> Result<Timeline> {
        let (Some(text), second) = request.texts() else {
            return self.absent(request, pass);
        };
        let prepared = prepared(request, text);
        let parts = composed(request, &prepared);
        let mut texts = Texts::default();
        let planned = parts
            .iter()
            .map(|part| texts.plan(part, request.rules().dialect, pass));
        let planned: Vec<Planned> = planned.collect::<Result<_>>()?;
        let texts = texts.all;
        let calls: Vec<Vec<(usize, usize)>> = planned.iter().map(distinct).collect();
        let requests = |call: &Vec<(usize, usize)>| -> Vec<Request<'_>> {
            let texts = call.iter().map(|(place, times)| {
                let text = request.with_texts(Some(&texts[*place]), second);
                text.occurring(*times).taking_out(TakenOut::Nothing)
            });
            texts.collect()
        };
        let requests: Vec<Vec<Request<'_>>> = calls.iter().map(requests).collect();
        let plans = self.plan_calls(&requests)?;
        let encoded = self.run_calls(&requests, plans)?;
        let parts = planned.iter().zip(calls).zip(encoded);
        let parts = parts.map(|((part, call), encoded)| part.encoded(&texts, &call, encoded));
        let parts = parts.collect();
        Ok(Timeline { parts })
    }

    /// The plans of all texts; refuses what the steps make of a text that is small itself.
    fn plan_calls(&self, calls: &[Vec<Request<'_>>]) -> Result<Vec<Vec<Vec<Plan>>>> {
        let mut more: usize = 0;
        let mut plans = Vec::with_capacity(calls.len());
        for call in calls {
            let (mut planned, mut forms, mut longest) = (Vec::new(), 0, 0);
            for request in call {
                let encoders = self.plan(request, &[])?;
                let most = |count: fn(&Plan) -> usize| encoders.iter().map(count).max();
                forms += most(Plan::n_forms).unwrap_or(0);
                longest = longest.max(most(|plan| plan.windows).unwrap_or(0));
                // All texts of a call get the length of the longest.
                expect_windows(more + forms + planned.len() * longest)?;
                planned.push(encoders);
            }
            more += forms + planned.len().saturating_sub(1) * longest;
            plans.push(planned);
        }
        Ok(plans)
    }

    /// No prompt may be zeros, which the empty one is not.
    fn absent(&self, request: &Request<'_>, pass: Pass) -> Result<Timeline> {
        let encoded = self.encode_worn(std::slice::from_ref(request))?.into_iter();
        let entries = encoded.map(|conditioning| TimelineEntry {
            span: Span::UntilStep(pass.steps()),
            text: String::new(),
            conditioning,
        });
        Ok(Timeline {
            parts: vec![TimelinePart {
                weight: 1.0,
                entries: entries.collect(),
            }],
        })
    }
}

/// The distinct texts of one part, and how many entries have each: the tool encodes all entries.
fn distinct(part: &Planned) -> Vec<(usize, usize)> {
    let mut places: Vec<usize> = part.entries.iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    let same = places.chunk_by(|one, other| one == other);
    same.map(|places| (places[0], places.len())).collect()
}

/// What the tool takes out is taken out before schedules are read, and not again of the texts that
/// they give.
fn prepared(request: &Request<'_>, text: &str) -> String {
    Prepared::of(text, request.rules(), request.is_negative()).text
}

/// A note if a prompt has a schedule or an `AND`, which only [`Conditioner::encode_schedule`] reads.
pub(super) fn unread(text: &str, dialect: Dialect, negative: bool) -> Option<Note> {
    if dialect != Dialect::A1111 {
        return None;
    }
    let pass = Pass::First { steps: 100 };
    let composed = compose::split(text);
    let has_parts =
        !negative && (composed.len() > 1 || composed.iter().any(|part| !part.weight.is_neutral()));
    (has_parts || Schedule::is_needed(text, pass)).then(|| Note {
        kind: NoteKind::Quirk,
        span: 0..text.len(),
        message: "this prompt is scheduled or composed with AND; that is read where the number of \
                  steps is given, here it is text"
            .to_owned(),
    })
}

/// The negative prompt is never split.
fn composed(request: &Request<'_>, text: &str) -> Vec<ComposedPrompt> {
    if request.is_negative() || request.rules().dialect != Dialect::A1111 {
        return vec![ComposedPrompt {
            text: text.to_owned(),
            weight: Strength::NEUTRAL,
            span: 0..text.len(),
        }];
    }
    compose::split(text)
}

/// The distinct texts of all parts.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    places: HashMap<String, usize>,
    /// What all steps' texts may need together.
    bytes: usize,
}

impl Texts {
    fn plan(&mut self, part: &ComposedPrompt, dialect: Dialect, pass: Pass) -> Result<Planned> {
        let entries = if dialect == Dialect::A1111 {
            let schedule = Schedule::parse(&part.text, pass);
            schedule.expect_all()?;
            if schedule.is_scheduled() {
                self.bytes = self.bytes.saturating_add(schedule.bytes());
            }
            schedule::expect_bytes(self.bytes)?;
            let entries = schedule.entries().iter();
            entries
                .map(|entry| (entry.until, self.place(&entry.text)))
                .collect()
        } else {
            vec![(pass.steps(), self.place(&part.text))]
        };
        Ok(Planned {
            weight: part.weight.get(),
            entries,
        })
    }

    fn place(&mut self, text: &str) -> usize {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.all.len();
        self.all.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

impl Planned {
    /// The part with what each of its texts gave. `call` has their places in `texts`.
    fn encoded(
        &self,
        texts: &[String],
        call: &[(usize, usize)],
        encoded: Vec<Conditioning>,
    ) -> TimelinePart {
        let places = call.iter().map(|(place, _)| *place);
        let conditionings: HashMap<usize, Conditioning> = places.zip(encoded).collect();
        let entries = self.entries.iter().filter_map(|(until, place)| {
            Some(TimelineEntry {
                span: Span::UntilStep(*until),
                text: texts[*place].clone(),
                conditioning: conditionings.get(place)?.clone(),
            })
        });
        TimelinePart {
            weight: self.weight,
            entries: entries.collect(),
        }
    }
}
