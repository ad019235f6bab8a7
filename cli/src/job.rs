//! One prompt and its negative with everything that was asked for, checked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sd_conditioner::profile::Choices;
use sd_conditioner::weights::{LoraFolder, WeightedLora};
use sd_conditioner::{Dialect, Embeddings, Family, Profile, Request, SizeHints};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::contents::Contents;
use crate::embeddings::EmbeddingFile;
use crate::loras::LoraFile;
use crate::names;
use crate::schedules::Steps;
pub(crate) use crate::sides::{Only, Side};
use crate::wishes::Wishes;

/// Of a sha256; two of ten million jobs share so many bytes once in 10^24 runs.
const KEY_BYTES: usize = 16;

/// What tells jobs apart.
pub(crate) type Key = [u8; KEY_BYTES];

/// Wishes that make sense together.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    wishes: Wishes,
    only: Option<Only>,
    /// Whether a negative was asked for that `only` leaves out.
    left_out: bool,
    positive: String,
    size: SizeHints,
    steps: Option<Steps>,
    embeddings: Option<Arc<Embeddings>>,
    loras: Vec<WeightedLora>,
    lora_folder: Option<Arc<LoraFolder>>,
    contents: Contents,
}

impl Job {
    /// The parts of a job, checked by [`Wishes::job`].
    pub(crate) fn new(
        wishes: Wishes,
        positive: String,
        size: SizeHints,
        steps: Option<Steps>,
    ) -> Job {
        Job {
            wishes,
            only: None,
            left_out: false,
            positive,
            size,
            steps,
            embeddings: None,
            loras: Vec::new(),
            lora_folder: None,
            contents: Contents::default(),
        }
    }

    /// The same with one side alone, if that is asked for. What the other one would be is no part of it.
    pub(crate) fn with_only(mut self, only: Option<Only>) -> Job {
        if only == Some(Only::Positive) {
            let wishes = &mut self.wishes;
            self.left_out = wishes.negative.take().is_some();
            (wishes.negative_2, wishes.negative_aesthetic_score) = (None, None);
        }
        Job { only, ..self }
    }

    /// The sides that are made and written, in order.
    pub(crate) fn sides(&self) -> &'static [Side] {
        match self.only {
            None => &Side::BOTH,
            Some(Only::Positive) => &[Side::Positive],
        }
    }

    /// The same with embeddings that its prompts may name.
    pub(crate) fn with_embeddings(self, embeddings: Option<Arc<Embeddings>>) -> Job {
        Job { embeddings, ..self }
    }

    /// The same with what is in its files.
    pub(crate) fn with_contents(self, contents: Contents) -> Job {
        Job { contents, ..self }
    }

    /// The embeddings that its prompts may name.
    pub(crate) fn embeddings(&self) -> Option<&Arc<Embeddings>> {
        self.embeddings.as_ref()
    }

    /// The embedding files it gives itself; `None` where it wants no embeddings at all.
    pub(crate) fn embedding_files(&self) -> Option<&[EmbeddingFile]> {
        self.wishes.embeddings.as_deref()
    }

    /// The same with its LoRA files opened, and a folder of those that its prompts may name.
    pub(crate) fn with_loras(
        self,
        loras: Vec<WeightedLora>,
        folder: Option<Arc<LoraFolder>>,
    ) -> Job {
        Job {
            loras,
            lora_folder: folder,
            ..self
        }
    }

    /// The LoRA files it puts on; `None` where it wants none, not even its prompt's own.
    pub(crate) fn lora_files(&self) -> Option<&[LoraFile]> {
        self.wishes.loras.as_deref()
    }

    /// The same, opened.
    pub(crate) fn loras(&self) -> &[WeightedLora] {
        &self.loras
    }

    /// The steps of prompt editing, if it is to be read.
    pub(crate) fn steps(&self) -> Option<Steps> {
        self.steps
    }

    /// The first text of a side; `None` where there is no negative.
    pub(crate) fn text(&self, side: Side) -> Option<&str> {
        match side {
            Side::Positive => Some(&self.positive),
            Side::Negative => self.wishes.negative.as_deref(),
        }
    }

    /// A side's request. A second text is for the family that has two encoders.
    pub(crate) fn request(&self, family: Family, side: Side) -> Request<'_> {
        self.request_of(family, side, self.text(side))
    }

    /// The same with another first text.
    pub(crate) fn request_of<'a>(
        &'a self,
        family: Family,
        side: Side,
        text: Option<&'a str>,
    ) -> Request<'a> {
        let wishes = &self.wishes;
        let second = match side {
            Side::Positive => wishes.positive_2.as_deref(),
            Side::Negative => wishes.negative_2.as_deref(),
        };
        let request = match (text, second.filter(|_| two_texts(family))) {
            (None, _) => Request::absent(),
            (Some(first), Some(second)) => Request::per_encoder(first, second),
            (Some(first), None) => Request::new(first),
        };
        let request = self.in_manner(request);
        match side {
            Side::Positive => request.size(self.size),
            Side::Negative => request.as_negative().size(SizeHints {
                aesthetic_score: wishes.negative_aesthetic_score,
                ..self.size
            }),
        }
    }

    fn in_manner<'a>(&'a self, request: Request<'a>) -> Request<'a> {
        let request = self.wishes.manner.of(request);
        let request = match &self.embeddings {
            Some(embeddings) => request.embeddings(embeddings),
            None => request,
        };
        let request = match &self.lora_folder {
            Some(folder) => request.loras(folder),
            None => request,
        };
        match self.wishes.clip_skip {
            Some(number) => request.clip_skip(number),
            None => request,
        }
    }

    /// The names of the profile and of what overrides it.
    pub(crate) fn manner(&self) -> Vec<(&'static str, String)> {
        self.wishes.manner.named()
    }

    /// Whose numbers.
    pub(crate) fn profile(&self) -> Profile {
        self.wishes.manner.profile()
    }

    /// The profile's choices with those that override them.
    pub(crate) fn choices(&self) -> Choices {
        self.wishes.manner.choices()
    }

    /// The texts with their names, in order: what was given, and nothing else.
    pub(crate) fn texts(&self) -> Vec<(&'static str, &str)> {
        let wishes = &self.wishes;
        let given = [
            ("positive", Some(&self.positive)),
            ("positive_2", wishes.positive_2.as_ref()),
            ("negative", wishes.negative.as_ref()),
            ("negative_2", wishes.negative_2.as_ref()),
        ];
        let given = given.into_iter();
        given
            .filter_map(|(name, text)| Some((name, text?.as_str())))
            .collect()
    }

    /// A hash of everything that was asked for, and of the files that are used for it. Jobs with equal
    /// ones give equal tensors with the same encoders.
    pub(crate) fn key(&self) -> Key {
        let mut asked = format!(
            "{:?}\n{:?}\n{:?}\n{:?}",
            self.positive, self.wishes, self.size, self.steps
        );
        if let Some(only) = self.only {
            let _ = write!(asked, "\nonly {}", only.name());
        }
        // Without files it is what it was before contents counted.
        if !self.contents.is_empty() {
            let _ = write!(asked, "\n{:?}", self.contents);
        }
        let mut key = Key::default();
        let hash = Sha256::digest(asked.as_bytes());
        key.copy_from_slice(&hash[..KEY_BYTES]);
        key
    }

    /// The same for people and files.
    pub(crate) fn key_in_hex(&self) -> String {
        hex(&self.key())
    }

    /// What a file's metadata say of the job.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        let texts = self.texts().into_iter();
        let texts = texts.map(|(name, text)| (name, text.to_owned()));
        let only = self.only.map(|only| ("only", only.name().to_owned()));
        let absent = self.wishes.negative.is_none() && only.is_none();
        let absent = absent.then(|| ("negative_absent", "true".to_owned()));
        let skip = self.wishes.clip_skip;
        let skip = skip.map(|number| ("clip_skip", number.to_string()));
        let key = [("request", self.key_in_hex())];
        let used = &self.contents.embeddings;
        let used = (!used.is_empty()).then(|| ("embeddings", json!(used).to_string()));
        let all = texts.chain(absent).chain(only).chain(skip).chain(key);
        let all = all.chain(used).chain(self.manner());
        all.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What was asked for and has no meaning for this family.
    pub(crate) fn unused(&self, family: Family) -> Vec<String> {
        let wishes = &self.wishes;
        let second = wishes.positive_2.is_some() || wishes.negative_2.is_some();
        let crop = wishes.crop_left.or(wishes.crop_top).is_some();
        let score = wishes
            .aesthetic_score
            .or(wishes.negative_aesthetic_score)
            .is_some();
        let [sized, targeted, scored] = numbers_told(family);
        let given = [
            ("a second text", second, two_texts(family)),
            ("a size", wishes.width.is_some(), sized),
            ("a crop", crop, sized),
            ("a target size", wishes.target_width.is_some(), targeted),
            ("an aesthetic score", score, scored),
        ];
        let unused = given.into_iter().filter(|(_, given, used)| *given && !used);
        let unused = unused
            .map(|(what, ..)| format!("{what} was given, and {family} takes none: it is not used"));
        let left_out = self
            .left_out
            .then(|| "only the positive prompt is written: the negative is not in it".to_owned());
        let unused = unused.chain(left_out).chain(self.unused_with_steps());
        unused.chain(self.unread_steps()).collect()
    }

    fn unread_steps(&self) -> Option<String> {
        let dialect = self.choices().dialect;
        let unread = self.steps.is_some() && dialect != Dialect::A1111;
        unread.then(|| {
            let name = names::dialect_name(dialect);
            format!("steps were given, and the dialect {name} has no prompt editing: there is one entry for all steps")
        })
    }

    fn unused_with_steps(&self) -> Option<String> {
        let lengths = self.wishes.manner.equal_lengths.is_some() && self.steps.is_some();
        lengths.then(|| {
            "a way to one length was given, and with steps the entries keep their own lengths: it \
             is not used"
                .to_owned()
        })
    }
}

/// Two digits for each byte.
pub(crate) fn hex(key: &Key) -> String {
    format!("{:032x}", u128::from_be_bytes(*key))
}

/// Whether the family is told sizes and a crop, a target size, an aesthetic score.
const fn numbers_told(family: Family) -> [bool; 3] {
    match family {
        Family::Sdxl => [true, true, false],
        Family::Refiner => [true, false, true],
        _ => [false, false, false],
    }
}

const fn two_texts(family: Family) -> bool {
    matches!(family, Family::Sdxl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wishes::Wishes;

    fn wishes(change: impl FnOnce(&mut Wishes)) -> Wishes {
        let mut wishes = Wishes {
            positive: Some("a cat".to_owned()),
            ..Wishes::default()
        };
        change(&mut wishes);
        wishes
    }

    #[test]
    fn absent_and_empty_negatives_differ_in_metadata() {
        let absent = wishes(|_| ()).job().unwrap().metadata();
        assert_eq!(absent.get("negative_absent").unwrap(), "true");
        assert!(!absent.contains_key("negative"));
        let empty = wishes(|all| all.negative = Some(String::new()));
        let empty = empty.job().unwrap().metadata();
        assert!(!empty.contains_key("negative_absent"));
        assert_eq!(empty.get("negative").unwrap(), "");
    }

    #[test]
    fn what_a_family_does_not_take_is_said() {
        let all = wishes(|all| {
            all.positive_2 = Some("b".to_owned());
            (all.width, all.height) = (Some(8), Some(8));
            (all.target_width, all.target_height) = (Some(8), Some(8));
            all.crop_top = Some(1);
            all.aesthetic_score = Some(1.0);
        });
        let job = all.job().unwrap();
        let counts = [
            (Family::Sd1, 5),
            (Family::Sd2, 5),
            (Family::Sdxl, 1),
            (Family::Refiner, 2),
        ];
        for (family, count) in counts {
            assert_eq!(job.unused(family).len(), count, "{family}");
        }
    }
}
