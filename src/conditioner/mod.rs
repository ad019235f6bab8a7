//! THE FLOW: parse, chunk, encode, assemble; and the builder that sets it up.

mod builder;
mod lengths;
mod request;

pub use builder::{Builder, Progress};
pub use request::Request;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::conditioning::{Conditioning, EncoderStates, Guidance, assemble};
use crate::encoder::{ClipSkip, ClipText, Encoded, Pooled, Readout};
use crate::error::{Error, ErrorKind, Result};
use crate::hub::{Hub, HubOptions};
use crate::profile::{EmptyNegative, SkipScope};
use crate::prompt::{Note, Prompt};
use crate::tokens::{Chunk, Chunks, TokenId, Tokenizer};
use crate::weights::{EncoderId, Family, LoadReport};

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
}

#[derive(Debug)]
struct Inner {
    family: Family,
    /// In the family's order.
    parts: Vec<Part>,
    report: LoadReport,
    fingerprint: String,
    dtype: DType,
    output: DType,
    device: Device,
}

#[derive(Debug)]
struct Part {
    id: EncoderId,
    clip: ClipText,
}

/// One encoder's share of one request, ready to run.
struct Planned {
    chunks: Chunks,
    readout: Readout,
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
        all.pop().ok_or_else(no_result)
    }

    /// Encodes a prompt and its negative, brought to one length.
    pub fn encode_pair<'a>(
        &self,
        positive: impl Into<Request<'a>>,
        negative: impl Into<Request<'a>>,
    ) -> Result<Guidance> {
        let pair = [positive.into(), negative.into().as_negative()];
        let mut plans = self.plan_all(&pair)?;
        let note = lengths::pad_to_each_other(&pair, &mut plans);
        let mut both = self.run(&pair, &plans)?.into_iter();
        let (positive, negative) = (both.next(), both.next());
        let (positive, negative) = positive.zip(negative).ok_or_else(no_result)?;
        lengths::join(positive, negative, note.as_ref())
    }

    /// Encodes many prompts: one forward for each encoder over the distinct windows.
    pub fn encode_batch(&self, requests: &[Request<'_>]) -> Result<Vec<Conditioning>> {
        let plans = self.plan_all(requests)?;
        self.run(requests, &plans)
    }

    /// The windows that a request would be encoded in, for each encoder. Runs nothing.
    pub fn chunks<'a>(&self, request: impl Into<Request<'a>>) -> Result<Vec<(EncoderId, Chunks)>> {
        let plans = self.plan(&request.into())?;
        let ids = self.inner.parts.iter().map(|part| part.id);
        Ok(ids.zip(plans.into_iter().map(|plan| plan.chunks)).collect())
    }

    /// The family of the loaded encoders.
    pub fn family(&self) -> Family {
        self.inner.family
    }

    /// The loaded encoders, in the order in which their channels are joined.
    pub fn encoders(&self) -> impl Iterator<Item = &ClipText> {
        self.inner.parts.iter().map(|part| &part.clip)
    }

    /// What became of the file's tensors.
    pub fn report(&self) -> &LoadReport {
        &self.inner.report
    }

    /// Tells checkpoints apart (see [`Checkpoint::fingerprint`](crate::weights::Checkpoint::fingerprint)).
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// The name of the kernels it runs on.
    pub fn kernels(&self) -> &'static str {
        self.inner
            .parts
            .first()
            .map_or("none", |part| part.clip.kernels())
    }

    fn plan_all(&self, requests: &[Request<'_>]) -> Result<Vec<Vec<Planned>>> {
        requests.iter().map(|request| self.plan(request)).collect()
    }

    /// What each encoder will be given, and what is read from it.
    fn plan(&self, request: &Request<'_>) -> Result<Vec<Planned>> {
        let parts = &self.inner.parts;
        let encoders: Vec<EncoderId> = parts.iter().map(|part| part.id).collect();
        let chunks = chunk(&encoders, request).into_iter();
        let plans = chunks.zip(parts).map(|(chunks, part)| {
            Ok(Planned {
                chunks,
                readout: self.readout(request, part)?,
            })
        });
        plans.collect()
    }

    fn readout(&self, request: &Request<'_>, part: &Part) -> Result<Readout> {
        let rules = request.rules();
        let skip = request.skip().ok_or_else(|| {
            Error::new(ErrorKind::Request, "a negative clip skip")
                .hint("A1111 counts 1, 2…; diffusers 0, 1…; only ComfyUI counts -1, -2…")
        })?;
        let unmoved = request.is_negative() && rules.skip_scope == SkipScope::PositiveOnly;
        let skip = if unmoved { ClipSkip::Default } else { skip };
        let pooled = request
            .wanted_pooled()
            .unwrap_or_else(|| self.pooled(request, part));
        Readout::of(self.inner.family, part.clip.config(), skip, pooled)
    }

    /// What the U-Net takes, or what the tool hands on although the U-Net does not take it.
    fn pooled(&self, request: &Request<'_>, part: &Part) -> Pooled {
        let needed = Readout::pooled_of(self.inner.family, part.id);
        if needed == Pooled::Skip {
            return Readout::spare_pooled(
                self.inner.family,
                part.clip.config(),
                request.rules().spare_pooled,
            );
        }
        needed
    }

    /// Encode, gather, assemble.
    fn run(&self, requests: &[Request<'_>], plans: &[Vec<Planned>]) -> Result<Vec<Conditioning>> {
        let mut parts = Vec::with_capacity(self.inner.parts.len());
        for (place, part) in self.inner.parts.iter().enumerate() {
            let shares: Vec<&Planned> = plans.iter().map(|plan| &plan[place]).collect();
            parts.push(encode_shares(part, &shares)?);
        }
        let mut all = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let states: Vec<EncoderStates> = parts.iter().map(|part| part[index].clone()).collect();
            let joined = assemble(self.inner.family, &states, self.inner.output)?;
            all.push(self.finish(joined, request, &plans[index])?);
        }
        Ok(all)
    }

    /// Zeroing, sizes and notes.
    fn finish(
        &self,
        joined: Conditioning,
        request: &Request<'_>,
        plan: &[Planned],
    ) -> Result<Conditioning> {
        let inner = &self.inner;
        let zero = self.is_zeroed(request);
        let joined = if zero { joined.zeroed()? } else { joined };
        let precision = request.rules().size_precision;
        let sized = joined.with_size(
            request.size_hints(),
            request.is_negative(),
            (precision, inner.dtype),
            &inner.device,
        )?;
        Ok(sized.with_notes(notes(plan)))
    }

    fn is_zeroed(&self, request: &Request<'_>) -> bool {
        let (family, negative) = (self.inner.family, request.is_negative());
        negative
            && match (request.rules().empty_negative, family) {
                (EmptyNegative::Encode, _)
                | (_, Family::Sd1 | Family::Sd2)
                | (EmptyNegative::ZeroWhenAbsent, Family::Refiner) => false,
                (EmptyNegative::ZeroWhenAbsent, Family::Sdxl) => request.is_absent(),
                (EmptyNegative::ZeroWhenEmpty, Family::Sdxl | Family::Refiner) => {
                    request.is_empty()
                }
            }
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
    let encoders = family.encoders();
    let chunks = chunk(encoders, &request.into());
    encoders.iter().copied().zip(chunks).collect()
}

/// Parse and chunk, for encoders in the family's order.
fn chunk(encoders: &[EncoderId], request: &Request<'_>) -> Vec<Chunks> {
    let rules = request.rules();
    let places = encoders.iter().enumerate();
    let mut chunks: Vec<Chunks> = places
        .map(|(place, encoder)| {
            let prompt = Prompt::parse(request.text_for(place), rules.dialect);
            Chunks::of(&prompt, Tokenizer::clip(), rules.chunk_rule(*encoder))
        })
        .collect();
    lengths::match_encoders(&mut chunks, rules.encoder_lengths, request.has_two_texts());
    chunks
}

/// The notes of all encoders, each once.
fn notes(plan: &[Planned]) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for note in plan.iter().flat_map(|planned| planned.chunks.notes()) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

/// Runs one encoder over the distinct windows of all requests and hands each its own.
fn encode_shares(part: &Part, shares: &[&Planned]) -> Result<Vec<EncoderStates>> {
    let mut rows: HashMap<([TokenId; 77], Readout), u32> = HashMap::new();
    let mut windows: Vec<&Chunk> = Vec::new();
    let mut readouts: Vec<Readout> = Vec::new();
    let mut places: Vec<Vec<u32>> = Vec::with_capacity(shares.len());
    for share in shares {
        let mut own = Vec::with_capacity(share.chunks.len().get());
        for chunk in &share.chunks {
            let next = u32::try_from(windows.len()).map_err(|_| too_many())?;
            let row = *rows.entry((*chunk.ids(), share.readout)).or_insert(next);
            if row == next {
                windows.push(chunk);
                readouts.push(share.readout);
            }
            own.push(row);
        }
        places.push(own);
    }
    let encoded = part.clip.encode(&windows, &readouts)?;
    shares
        .iter()
        .zip(&places)
        .map(|(share, own)| gather(part, &encoded, share, own))
        .collect()
}

/// One request's windows out of the batch, and the pooled vector of its first window.
fn gather(part: &Part, encoded: &Encoded, share: &Planned, own: &[u32]) -> Result<EncoderStates> {
    let index = Tensor::new(own, encoded.hidden.device())?;
    let hidden = encoded.hidden.index_select(&index, 0)?;
    let first = own.first().copied().unwrap_or_default() as usize;
    let pooled = encoded.pooled(share.readout.pooled);
    let pooled = pooled.map(|all| all.narrow(0, first, 1)).transpose()?;
    Ok(EncoderStates {
        encoder: part.id,
        hidden,
        pooled,
    })
}

fn no_result() -> Error {
    Error::new(ErrorKind::Request, "a request gave no conditioning")
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::Request,
        "more windows in one call than can be numbered",
    )
}
