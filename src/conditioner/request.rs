//! What to encode, and what to change of a profile's choices.

use std::borrow::Cow;

use crate::conditioning::{Emphasis, EndRows, SizeHints};
use crate::encoder::{ClipSkip, Gelu, Pooled};
use crate::profile::{
    Choices, EqualLengths, Profile, SecondText, SkipNumbering, SkipScope, TakenOut,
};
use crate::prompt::{Dialect, is_blank};
use crate::tokens::{Cleaner, Split};
use crate::weights::LoraFolder;

use super::embeddings::Embeddings;

/// One prompt, for one or two encoders, in one tool's manner.
///
/// ```
/// use sd_conditioner::{Profile, Request, SizeHints};
/// let request = Request::new("a lighthouse at dusk")
///     .profile(Profile::ComfyUi)
///     .clip_skip(-2)
///     .size(SizeHints::new(1216, 832));
/// # let _ = request;
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct Request<'a> {
    text: Option<&'a str>,
    text_2: Option<&'a str>,
    profile: Profile,
    choices: Choices,
    /// Whether profile or choices were set.
    has_manner: bool,
    clip_skip: Option<i32>,
    size: Option<SizeHints>,
    negative: bool,
    pooled: Option<Pooled>,
    embeddings: Option<&'a Embeddings>,
    loras: Option<&'a LoraFolder>,
    least_windows: u8,
    /// How often the tool has it in its call.
    times: usize,
}

/// A request with texts of its own. It names no folder of `LoRA`s: that is looked into before.
#[derive(Clone, Debug)]
pub(super) struct OwnedRequest {
    text: Option<String>,
    text_2: Option<String>,
    embeddings: Option<Embeddings>,
    /// Everything else.
    settings: Request<'static>,
}

impl OwnedRequest {
    pub(super) fn of(request: &Request<'_>) -> OwnedRequest {
        let settings = Request {
            profile: request.profile,
            choices: request.choices,
            has_manner: request.has_manner,
            clip_skip: request.clip_skip,
            size: request.size,
            negative: request.negative,
            pooled: request.pooled,
            least_windows: request.least_windows,
            ..Request::absent()
        };
        OwnedRequest {
            text: request.text.map(str::to_owned),
            text_2: request.text_2.map(str::to_owned),
            embeddings: request.embeddings.cloned(),
            settings,
        }
    }

    /// The request again.
    pub(super) fn request(&self) -> Request<'_> {
        let texts = (self.text.as_deref(), self.text_2.as_deref());
        Request {
            embeddings: self.embeddings.as_ref(),
            ..self.settings.with_texts(texts.0, texts.1)
        }
    }
}

impl<'a> From<&'a str> for Request<'a> {
    fn from(text: &'a str) -> Request<'a> {
        Request::new(text)
    }
}

impl<'a> From<&'a String> for Request<'a> {
    fn from(text: &'a String) -> Request<'a> {
        Request::new(text)
    }
}

impl<'a> Request<'a> {
    /// One text for all encoders, in [`Profile::default`]'s manner.
    pub fn new(text: &'a str) -> Request<'a> {
        Request::of(Some(text), None)
    }

    /// No prompt at all. For a negative side this differs from `""` where the tool says so
    /// (diffusers' SDXL gives zeros); everywhere else the empty prompt is encoded.
    pub fn absent() -> Request<'static> {
        Request::of(None, None)
    }

    /// SDXL's two texts: the first for ViT-L, the second for ViT-bigG. Of a family with one encoder
    /// that one reads the first, the refiner's ViT-bigG too, and the second is left out with a note.
    ///
    /// What an empty second text means is the profile's: the empty prompt (`ComfyUI`, compel) or the
    /// first text again (diffusers, `InvokeAI`).
    pub fn per_encoder(clip_l: &'a str, clip_g: &'a str) -> Request<'a> {
        Request::of(Some(clip_l), Some(clip_g))
    }

    fn of(text: Option<&'a str>, text_2: Option<&'a str>) -> Request<'a> {
        let profile = Profile::default();
        Request {
            text,
            text_2,
            profile,
            choices: profile.choices(),
            has_manner: false,
            clip_skip: None,
            size: None,
            negative: false,
            pooled: None,
            embeddings: None,
            loras: None,
            least_windows: 0,
            times: 1,
        }
    }

    /// Whose numbers. Sets all choices; the finer setters below, called after it, change one each.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self.choices(profile.choices())
    }

    /// All choices at once.
    pub fn choices(mut self, choices: Choices) -> Self {
        self.choices = choices;
        self.has_manner = true;
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Choices)) -> Self {
        change(&mut self.choices);
        self.has_manner = true;
        self
    }

    /// The grammar of the text.
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.change(|choices| choices.dialect = dialect)
    }

    /// How strengths change hidden states.
    pub fn emphasis(self, emphasis: Emphasis) -> Self {
        self.change(|choices| choices.emphasis = emphasis)
    }

    /// Embeddings that the text may name, in the profile's own syntax.
    pub fn embeddings(mut self, embeddings: &'a Embeddings) -> Self {
        self.embeddings = Some(embeddings);
        self
    }

    /// A folder for the `LoRA`s that the text names: `<lora:film:0.8>` where the profile takes such out of
    /// the text (A1111, Forge, stable-diffusion.cpp), `withLora(film, 0.8)` in compel's grammar. They are put on
    /// for this request; names that the folder does not have become notes. A negative prompt names
    /// none: A1111 leaves `<lora:…>` in it as text.
    pub fn loras(mut self, folder: &'a LoraFolder) -> Self {
        self.loras = Some(folder);
        self
    }

    /// One text clean-up for all encoders.
    pub fn cleaner(self, cleaner: Cleaner) -> Self {
        self.change(|choices| {
            choices.cleaner_clip = cleaner;
            choices.cleaner_open_clip = cleaner;
        })
    }

    /// How a long prompt is cut.
    pub fn split(self, split: Split) -> Self {
        self.change(|choices| choices.split = split)
    }

    /// What is done to the end tokens of a prompt of several windows (compel).
    pub fn end_rows(self, ends: EndRows) -> Self {
        self.change(|choices| choices.end_rows = ends)
    }

    /// How positive and negative are brought to one length; the positive side's rule counts.
    pub fn equal_lengths(self, rule: EqualLengths) -> Self {
        self.change(|choices| choices.equal_lengths = rule)
    }

    /// Which GELU the encoders have.
    pub fn gelu(self, gelu: Gelu) -> Self {
        self.change(|choices| choices.gelu = gelu)
    }

    /// Clip skip, in the profile's own numbering (see [`ClipSkip`]).
    pub fn clip_skip(mut self, number: i32) -> Self {
        self.clip_skip = Some(number);
        self
    }

    /// Makes so many windows of each text at least: what is missing are windows of the empty prompt, or zeros where
    /// the profile fills an encoder's rows with them (`InvokeAI`). Whoever batches prompts has them in one length so;
    /// sd-scripts' `--max_token_length 225` is 3. Longer texts stay as they are, sides of different lengths are
    /// filled and not repeated, and [`Split::LpwSdxl`], which cuts the ends off, does not use it.
    pub fn least_windows(mut self, windows: u8) -> Self {
        self.least_windows = windows;
        self
    }

    /// The least windows of each text.
    pub(super) fn fewest_windows(&self) -> usize {
        usize::from(self.least_windows)
    }

    /// SDXL's size numbers.
    pub fn size(mut self, size: SizeHints) -> Self {
        self.size = Some(size);
        self
    }

    /// Which pooled vector to make, whatever the family and the profile say.
    pub fn pooled(mut self, pooled: Pooled) -> Self {
        self.pooled = Some(pooled);
        self
    }

    /// Treats it as a negative prompt: zeroing, clip skip and aesthetic score follow the tool's
    /// rule for negatives. `encode_pair` does this by itself.
    pub fn as_negative(mut self) -> Self {
        self.negative = true;
        self
    }

    /// As the negative of `positive`, whose settings it takes where it has none of its own
    /// ([`Conditioner::encode_pair`](super::Conditioner::encode_pair)).
    pub(super) fn negative_of(mut self, positive: &Request<'a>) -> Self {
        if !self.has_manner {
            (self.profile, self.choices) = (positive.profile, positive.choices);
            // Its numbering is the profile's.
            self.clip_skip = self.clip_skip.or(positive.clip_skip);
        }
        self.least_windows = self.least_windows.max(positive.least_windows);
        // Each side has a score of its own.
        let of_both = |size| SizeHints {
            aesthetic_score: None,
            ..size
        };
        self.size = self.size.or(positive.size.map(of_both));
        self.embeddings = self.embeddings.or(positive.embeddings);
        self.pooled = self.pooled.or(positive.pooled);
        self.as_negative()
    }

    /// The text for the encoder at this place of the family's order.
    pub(super) fn text_for(&self, place: usize) -> Cow<'a, str> {
        let first = self.text.unwrap_or_default();
        let (second, rule) = (self.text_2.unwrap_or(first), self.choices.second_text());
        let given = match rule {
            SecondText::AsGiven => true,
            SecondText::FirstIfEmpty | SecondText::Appended => !second.is_empty(),
            SecondText::FirstIfBlank => !is_blank(second),
        };
        if rule == SecondText::Appended && self.has_two_texts() && given {
            return format!("{first} {second}").into();
        }
        if place == 0 || !given { first } else { second }.into()
    }

    pub(super) fn has_two_texts(&self) -> bool {
        self.text_2.is_some()
    }

    pub(super) fn is_absent(&self) -> bool {
        self.text.is_none() && self.text_2.is_none()
    }

    /// True when every text is exactly `""` or absent.
    pub(super) fn is_empty(&self) -> bool {
        [self.text, self.text_2]
            .into_iter()
            .flatten()
            .all(str::is_empty)
    }

    /// True when the text for the encoder at this place is exactly `""` or absent.
    pub(super) fn is_empty_for(&self, place: usize) -> bool {
        self.text_for(place).is_empty()
    }

    pub(super) fn embeddings_given(&self) -> Option<&'a Embeddings> {
        self.embeddings
    }

    pub(super) fn lora_folder(&self) -> Option<&'a LoraFolder> {
        self.loras
    }

    /// The same settings for other text.
    pub(super) fn with_texts<'b>(
        &self,
        text: Option<&'b str>,
        text_2: Option<&'b str>,
    ) -> Request<'b>
    where
        'a: 'b,
    {
        Request {
            text,
            text_2,
            ..self.clone()
        }
    }

    /// The same where the tool has it so often in one call: all of them count in its means.
    pub(super) fn occurring(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// The same for a text of which everything is taken out already.
    pub(super) fn taking_out(mut self, taken_out: TakenOut) -> Self {
        self.choices.taken_out = taken_out;
        self
    }

    pub(super) fn times(&self) -> usize {
        self.times
    }

    pub(super) fn texts(&self) -> (Option<&'a str>, Option<&'a str>) {
        (self.text, self.text_2)
    }

    pub(super) fn is_negative(&self) -> bool {
        self.negative
    }

    pub(super) fn rules(&self) -> &Choices {
        &self.choices
    }

    pub(super) fn size_hints(&self) -> SizeHints {
        self.size.unwrap_or_default()
    }

    pub(super) fn wanted_pooled(&self) -> Option<Pooled> {
        self.pooled
    }

    /// The clip skip with its numbering, where it applies to this side; `None` where the number
    /// cannot be one of it.
    pub(super) fn skip(&self) -> Option<ClipSkip> {
        let unmoved = self.negative && self.choices.skip_scope() == SkipScope::PositiveOnly;
        let Some(number) = self.clip_skip.filter(|_| !unmoved) else {
            return Some(ClipSkip::Default);
        };
        Some(match self.choices.skip_numbering {
            SkipNumbering::ComfyUi => ClipSkip::ComfyUi(number),
            SkipNumbering::A1111 => ClipSkip::A1111(u32::try_from(number).ok()?),
            SkipNumbering::Forge => ClipSkip::Forge(u32::try_from(number).ok()?),
            SkipNumbering::Diffusers => ClipSkip::Diffusers(u32::try_from(number).ok()?),
            SkipNumbering::SdCpp => ClipSkip::SdCpp(u32::try_from(number).ok()?),
        })
    }

    /// The number as it was given.
    pub(super) fn skip_number(&self) -> Option<i32> {
        self.clip_skip
    }
}
