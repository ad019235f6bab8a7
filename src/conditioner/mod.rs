//! THE FLOW: parse, chunk, encode, assemble; and the builder that sets it up.

mod alone;
mod batch;
mod bounds;
mod builder;
mod cache;
mod carried;
mod choice;
mod compose;
mod embeddings;
mod finish;
mod finite;
mod lengths;
mod loras;
#[cfg(test)]
mod meddling;
mod pairs;
mod part;
mod plan;
mod prepare;
mod prompted;
mod reading;
mod readout;
mod request;
mod schedule;
mod seat;
mod stopping;
mod turns;
mod watched;

pub use alone::PlannedPrompt;
pub use bounds::FORM_WINDOWS_AT_MOST;
pub use builder::{Builder, Progress};
pub use cache::{CacheOptions, CacheStats, DiskCache};
pub use embeddings::Embeddings;
pub use pairs::PlannedPair;
pub use reading::{ReadText, Reading, readings_for};
pub use request::Request;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::DType;

use self::compose::{Run, fillers};
use self::part::Part;
use self::plan::{Planned, Tower};
use self::seat::{Home, Placed, Seat};
use crate::conditioning::{Conditioning, EncoderStates, Guidance};
use crate::encoder::ClipText;
use crate::error::Result;
use crate::hub::{Hub, HubOptions};
use crate::stop::Stop;
use crate::tokens::Chunks;
use crate::weights::{EncoderId, Family, LoadReport, LoraReport, WeightedLora};

/// Loaded text encoders of one family. Cheap to clone, `Send + Sync`.
///
/// ```
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
/// // Random weights stand in for `Conditioner::open("sd_xl_base_1.0.safetensors")?`.
/// let text = Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?;
/// let guidance = text.encode_pair("a rusty robot on a beach", "blurry")?;
/// let batch = guidance.stacked()?; // negative first, then positive
/// assert_eq!(batch.context().dims(), [2, 77, 384]);
/// assert_eq!(batch.vector()?.unwrap().dims(), [2, 256 + 6 * 256]);
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conditioner {
    inner: Arc<Inner>,
    /// Whom this handle asks while it encodes.
    stop: Stop,
}

#[derive(Debug)]
struct Inner {
    family: Family,
    /// The encoders.
    seat: Arc<Seat>,
    /// What it shares with all other handles of the load.
    home: Arc<Home>,
    report: LoadReport,
    fingerprint: String,
    dtype: DType,
    output: DType,
    /// Its `LoRA`s, and what became of each.
    worn: Vec<WeightedLora>,
    loras: Vec<LoraReport>,
    /// The encoders without `LoRA`s, where this has some.
    base: Option<Arc<Inner>>,
    /// What the last prompt that named some made of it.
    last: prompted::Last,
}

impl Conditioner {
    /// Loads a checkpoint on the CPU in f32, whatever its format, layout and family.
    pub fn open(path: impl AsRef<Path>) -> Result<Conditioner> {
        Conditioner::builder().open(path)
    }

    /// Loads a checkpoint by name (`sd15`, `sdxl`, …: the names of `weights.toml`) on the CPU in f32,
    /// from the hub's cache or, in builds with the feature `hub`, from the hub.
    ///
    /// ```no_run
    /// use sd_conditioner::{Conditioner, hub::HubOptions};
    /// let cache_dir = Some("/data/huggingface/hub".into());
    /// let text = Conditioner::from_hub("sdxl", HubOptions { cache_dir, ..HubOptions::default() })?;
    /// println!("{}", text.family());
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn from_hub(name: &str, options: HubOptions) -> Result<Conditioner> {
        Conditioner::builder().from_hub(&Hub::new(options), name)
    }

    /// Device, precision and family to choose.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Encodes one prompt.
    pub fn encode<'a>(&self, request: impl Into<Request<'a>>) -> Result<Conditioning> {
        let mut all = self.encode_batch(&[request.into()])?;
        all.pop().ok_or_else(compose::incomplete)
    }

    /// Encodes a prompt and its negative, brought to one length. `LoRA`s that the prompt names are
    /// on for both.
    ///
    /// What the negative does not set itself is the prompt's: the manner (profile and choices, as
    /// one; with it the clip skip), the sizes but for the aesthetic score, the embeddings, the kind of
    /// pooled vector. So a bare text is read as the prompt is:
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, Profile, Request, SizeHints, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sdxl, SyntheticSize::Tiny, 73)?;
    /// let request = Request::new("a (cat:1.2)").profile(Profile::ComfyUi);
    /// let guidance = text.encode_pair(request.size(SizeHints::new(1216, 832)), "(fog:1.3)")?;
    /// let sizes = guidance.negative().time_ids().unwrap().to_vec2::<f32>()?;
    /// assert_eq!(sizes[0][..2], [832.0, 1216.0]);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn encode_pair<'a>(
        &self,
        positive: impl Into<Request<'a>>,
        negative: impl Into<Request<'a>>,
    ) -> Result<Guidance> {
        let positive = positive.into();
        let negative = negative.into().negative_of(&positive);
        let pair = [positive, negative];
        self.prompted(&pair[0])?.dressed(&pair, |text, pair| {
            let planned = text.planned(pair[0].clone(), pair[1].clone())?;
            let mut all = text.encode_planned([&planned])?;
            all.pop().ok_or_else(compose::incomplete)
        })
    }

    /// Encodes many prompts: one forward for each encoder over the distinct windows. Each result is
    /// what [`encode`](Self::encode) would give. Prompts that name other `LoRA`s have a forward of
    /// their own, and so have those that want another [`Gelu`](crate::encoder::Gelu). Encoders with `LoRA`s
    /// are there for one such forward at a time. Where one request is refused, all are; if that is for its
    /// `LoRA`s, the error says [which one](crate::Error::request).
    pub fn encode_batch(&self, requests: &[Request<'_>]) -> Result<Vec<Conditioning>> {
        self.encode_grouped(requests)
    }

    /// With the encoders as they are.
    fn encode_worn(&self, requests: &[Request<'_>]) -> Result<Vec<Conditioning>> {
        let plans = self.plan_all(requests)?;
        let alone: Vec<Range<usize>> = (0..requests.len()).map(|one| one..one + 1).collect();
        self.run(requests, &plans, &alone)
    }

    /// Encodes prompts as one call of the tool, as A1111 does with the texts of a schedule: all get
    /// the length of the longest, and the means that its emphasis restores are those of all texts.
    /// The `LoRA`s are those that the first one names.
    pub fn encode_together(&self, requests: &[Request<'_>]) -> Result<Vec<Conditioning>> {
        let Some(first) = requests.first() else {
            return Ok(Vec::new());
        };
        self.prompted(first)?.dressed(requests, |text, requests| {
            let mut calls = text.encode_calls(&[requests.to_vec()])?;
            calls.pop().ok_or_else(compose::incomplete)
        })
    }

    /// Several calls of the tool in one batch.
    fn encode_calls(&self, calls: &[Vec<Request<'_>>]) -> Result<Vec<Vec<Conditioning>>> {
        let plans = calls.iter().map(|call| self.plan_all(call));
        self.run_calls(calls, plans.collect::<Result<_>>()?)
    }

    /// The same with the plans of each call's requests.
    fn run_calls(
        &self,
        calls: &[Vec<Request<'_>>],
        planned: Vec<Vec<Vec<Planned>>>,
    ) -> Result<Vec<Vec<Conditioning>>> {
        let (mut plans, mut ranges) = (Vec::new(), Vec::with_capacity(calls.len()));
        for mut call in planned {
            lengths::pad_inside(call.iter_mut());
            ranges.push(plans.len()..plans.len() + call.len());
            plans.extend(call);
        }
        let requests = calls.concat();
        let mut all = self.run(&requests, &plans, &ranges)?.into_iter();
        Ok(calls
            .iter()
            .map(|call| all.by_ref().take(call.len()).collect())
            .collect())
    }

    /// The windows that a request would be encoded in, for each encoder. Runs nothing. The parts of
    /// compel's blends and conjunctions follow each other.
    pub fn chunks<'a>(&self, request: impl Into<Request<'a>>) -> Result<Vec<(EncoderId, Chunks)>> {
        let plans = self.plan_unbounded(&request.into(), &[])?;
        let placed = self.placed();
        let ids = placed.parts.iter().map(|part| part.id);
        Ok(ids.zip(plans.iter().map(shown)).collect())
    }

    /// The family of the loaded encoders.
    pub fn family(&self) -> Family {
        self.inner.family
    }

    /// The loaded encoders where they are now, in the order in which their channels are joined.
    /// Each has its own GELU, shares its tensors with this handle, and keeps them where they are if the handle moves
    /// ([`load_to`](Self::load_to)).
    pub fn encoders(&self) -> impl Iterator<Item = ClipText> {
        let placed = self.placed();
        let clips: Vec<ClipText> = placed.parts.iter().map(|part| part.clip.clone()).collect();
        clips.into_iter()
    }

    /// What became of the file's tensors.
    pub fn report(&self) -> &LoadReport {
        &self.inner.report
    }

    /// Tells checkpoints apart (see [`Checkpoint::fingerprint`](crate::weights::Checkpoint::fingerprint)).
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// How the encoders' matrices are kept.
    pub fn dtype(&self) -> DType {
        self.inner.dtype
    }

    /// The name of the kernels it runs on.
    pub fn kernels(&self) -> &'static str {
        let placed = self.placed();
        let first = placed.parts.first();
        first.map_or("none", |part| part.clip.kernels())
    }

    fn plan_all(&self, requests: &[Request<'_>]) -> Result<Vec<Vec<Planned>>> {
        requests
            .iter()
            .map(|request| self.plan(request, &[]))
            .collect()
    }

    /// What each encoder will be given, and what is read from it. Refuses what needs too many windows.
    fn plan(&self, request: &Request<'_>, fill: &[usize]) -> Result<Vec<Planned>> {
        let plans = self.plan_unbounded(request, fill)?;
        plans.iter().try_for_each(Planned::expect_all_forms)?;
        Ok(plans)
    }

    /// The same to be shown: of what needs too many windows it has the text's own.
    fn plan_unbounded(&self, request: &Request<'_>, fill: &[usize]) -> Result<Vec<Planned>> {
        let placed = self.placed();
        let mut plans = plan::plan(&placed.towers(), request, fill);
        for (plan, part) in plans.iter_mut().zip(&placed.parts) {
            plan.readout = Some(readout::of(self.inner.family, request, part.clip.config())?);
            plan.notes
                .extend(readout::ignored_skip(self.inner.family, request));
        }
        Ok(plans)
    }

    /// Encode, emphasize, assemble. `calls` groups the requests.
    fn run(
        &self,
        requests: &[Request<'_>],
        plans: &[impl AsRef<[Planned]>],
        calls: &[Range<usize>],
    ) -> Result<Vec<Conditioning>> {
        let (inner, placed) = (&self.inner, self.placed());
        let mut by_encoder = Vec::with_capacity(placed.parts.len());
        // SDXL's larger one is its last; on a card the other runs beside it.
        for place in (0..placed.parts.len()).rev() {
            let plans = plans.iter().map(|plan| &plan.as_ref()[place]);
            let plans: Vec<&Planned> = plans.collect();
            by_encoder.push(self.states(&placed, place, (requests, &plans), calls)?);
        }
        by_encoder.reverse();
        let mut all = Vec::with_capacity(requests.len());
        for call in calls {
            let empty_call = requests[call.clone()].iter().all(Request::is_empty);
            for index in call.clone() {
                let states = by_encoder.iter().map(|states| states[index].clone());
                let states = (states.collect(), empty_call);
                let (request, plan) = (&requests[index], plans[index].as_ref());
                let made = finish::finish(inner, &placed, request, plan, states)?;
                all.push(finite::told(made, plan)?);
            }
        }
        Ok(all)
    }

    /// What the encoder at this place of the family's order gives for each request.
    fn states(
        &self,
        placed: &Placed,
        place: usize,
        (requests, plans): (&[Request<'_>], &[&Planned]),
        calls: &[Range<usize>],
    ) -> Result<Vec<EncoderStates>> {
        let part = &placed.parts[place];
        let cached = batch::Cached {
            part,
            cache: &self.inner.home.cache,
            device: &placed.device,
            stop: &self.stop,
        };
        let (rows, places) = batch::encode(cached, requests, plans, &fillers(requests, plans))?;
        let run = Run {
            part,
            family: self.inner.family,
            place,
            requests,
            plans,
            places: &places,
            rows: &rows,
        };
        run.states(calls)
    }
}

/// The windows that a family's encoders would be given for a request. Needs no weights.
///
/// ```
/// use sd_conditioner::{Family, conditioner::chunks_for, weights::EncoderId};
/// let windows = chunks_for(Family::Sdxl, "a lighthouse at dusk");
/// assert_eq!(windows[1].0, EncoderId::OpenClipG);
/// assert_eq!(windows[1].1.len().get(), 1);
/// ```
pub fn chunks_for<'a>(family: Family, request: impl Into<Request<'a>>) -> Vec<(EncoderId, Chunks)> {
    let encoders = family.encoders().iter().copied();
    let tower = |id: EncoderId| Tower {
        id,
        width: id.width(),
    };
    let towers: Vec<Tower> = encoders.map(tower).collect();
    let plans = plan::plan(&towers, &request.into(), &[]);
    let ids = towers.iter().map(|tower| tower.id);
    ids.zip(plans.iter().map(shown)).collect()
}

/// All windows of a plan, and the notes of the whole prompt.
fn shown(plan: &Planned) -> Chunks {
    let all = Chunks::joined(plan.chunks());
    let all = all.unwrap_or_else(|| plan.texts[0].chunks.clone());
    let length = std::num::NonZeroUsize::new(plan.windows).unwrap_or(all.len());
    all.padded_to(plan.windows)
        .cut_to(length)
        .with_notes(plan.notes.clone())
}
