//! One prompt and its negative with everything that was asked for, checked.

use std::collections::BTreeMap;

use sd_conditioner::prompt::{Note, NoteKind};
use sd_conditioner::tokens::Cleaner;
use sd_conditioner::{Conditioner, Family, Guidance, Profile, Request, Result, SizeHints};

use crate::flags::{EncodeFlags, TokensFlags};
use crate::values;

/// Everything that can be asked for; `None` where it was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) positive: Option<String>,
    pub(crate) positive_2: Option<String>,
    pub(crate) negative: Option<String>,
    pub(crate) negative_2: Option<String>,
    pub(crate) profile: Option<Profile>,
    pub(crate) cleaner: Option<Cleaner>,
    pub(crate) clip_skip: Option<i32>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) crop_left: Option<u32>,
    pub(crate) crop_top: Option<u32>,
    pub(crate) target_width: Option<u32>,
    pub(crate) target_height: Option<u32>,
    pub(crate) aesthetic_score: Option<f32>,
    pub(crate) negative_aesthetic_score: Option<f32>,
}

/// Wishes that make sense together.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    wishes: Wishes,
    positive: String,
    size: SizeHints,
}

impl From<&EncodeFlags> for Wishes {
    fn from(flags: &EncodeFlags) -> Wishes {
        let (texts, sizes) = (&flags.texts, &flags.sizes);
        Wishes {
            positive: texts.positive.clone(),
            positive_2: texts.positive_2.clone(),
            negative: texts.negative.clone(),
            negative_2: texts.negative_2.clone(),
            profile: Some(flags.manner.profile),
            cleaner: flags.manner.cleaner,
            clip_skip: flags.clip_skip,
            width: sizes.size.map(|size| size.width),
            height: sizes.size.map(|size| size.height),
            crop_left: sizes.crop.map(|point| point.left),
            crop_top: sizes.crop.map(|point| point.top),
            target_width: sizes.target_size.map(|size| size.width),
            target_height: sizes.target_size.map(|size| size.height),
            aesthetic_score: sizes.aesthetic_score,
            negative_aesthetic_score: sizes.negative_aesthetic_score,
        }
    }
}

impl From<&TokensFlags> for Wishes {
    fn from(flags: &TokensFlags) -> Wishes {
        let texts = &flags.texts;
        Wishes {
            positive: texts.positive.clone(),
            positive_2: texts.positive_2.clone(),
            negative: texts.negative.clone(),
            negative_2: texts.negative_2.clone(),
            profile: Some(flags.manner.profile),
            cleaner: flags.manner.cleaner,
            ..Wishes::default()
        }
    }
}

impl Wishes {
    /// Checks what belongs together.
    pub(crate) fn job(mut self) -> Result<Job, String> {
        let positive = self.positive.take().ok_or("`positive` is missing")?;
        if self.negative_2.is_some() && self.negative.is_none() {
            return Err("`negative_2` needs `negative` (which may be empty)".to_owned());
        }
        let size = self.size()?;
        Ok(Job {
            wishes: self,
            positive,
            size,
        })
    }

    fn size(&self) -> Result<SizeHints, String> {
        let original = both(["width", "height"], [self.width, self.height])?;
        let target = both(
            ["target_width", "target_height"],
            [self.target_width, self.target_height],
        )?;
        self.negative_aesthetic_score
            .map(values::finite)
            .transpose()?;
        let hints = original.map_or_else(SizeHints::default, |[width, height]| {
            SizeHints::new(width, height)
        });
        Ok(SizeHints {
            crop_left: values::offset(self.crop_left.unwrap_or(0))?,
            crop_top: values::offset(self.crop_top.unwrap_or(0))?,
            target_width: target.map(|[width, _]| width),
            target_height: target.map(|[_, height]| height),
            aesthetic_score: self.aesthetic_score.map(values::finite).transpose()?,
            ..hints
        })
    }
}

/// Two sides of one picture: both or none.
fn both(names: [&str; 2], sides: [Option<u32>; 2]) -> Result<Option<[u32; 2]>, String> {
    let named = |index: usize, pixels: u32| {
        values::side(pixels).map_err(|error| format!("`{}`: {error}", names[index]))
    };
    match sides {
        [None, None] => Ok(None),
        [Some(width), Some(height)] => Ok(Some([named(0, width)?, named(1, height)?])),
        [Some(_), None] => Err(format!("`{}` needs `{}`", names[0], names[1])),
        [None, Some(_)] => Err(format!("`{}` needs `{}`", names[1], names[0])),
    }
}

impl Job {
    /// The profile that was asked for, or the library's own choice.
    pub(crate) fn profile(&self) -> Profile {
        self.wishes.profile.unwrap_or_default()
    }

    /// Encodes both prompts.
    pub(crate) fn encode(&self, text: &Conditioner) -> Result<Guidance> {
        let family = text.family();
        text.encode_pair(self.positive(family), self.negative(family))
    }

    /// True if both sides need the same number of windows, and not many.
    fn can_share(&self, text: &Conditioner) -> bool {
        let family = text.family();
        let windows = |request| {
            let chunks = text.chunks(request).ok()?;
            Some(chunks.first()?.1.len().get())
        };
        let positive = windows(self.positive(family));
        positive.is_some_and(|count| count <= WINDOWS_TOGETHER)
            && positive == windows(self.negative(family))
    }

    /// The positive request. A second text is for the family that has two encoders.
    pub(crate) fn positive(&self, family: Family) -> Request<'_> {
        let request = match &self.wishes.positive_2 {
            Some(second) if two_texts(family) => Request::per_encoder(&self.positive, second),
            Some(_) | None => Request::new(&self.positive),
        };
        self.in_manner(request).size(self.size)
    }

    /// The negative request, absent where no text was given.
    pub(crate) fn negative(&self, family: Family) -> Request<'_> {
        let wishes = &self.wishes;
        let request = match (&wishes.negative, &wishes.negative_2) {
            (None, _) => Request::absent(),
            (Some(first), Some(second)) if two_texts(family) => Request::per_encoder(first, second),
            (Some(first), _) => Request::new(first),
        };
        let size = SizeHints {
            aesthetic_score: wishes.negative_aesthetic_score,
            ..self.size
        };
        self.in_manner(request).size(size).as_negative()
    }

    fn in_manner<'a>(&self, request: Request<'a>) -> Request<'a> {
        let request = request.profile(self.profile());
        let request = match self.wishes.cleaner {
            Some(cleaner) => request.cleaner(cleaner),
            None => request,
        };
        match self.wishes.clip_skip {
            Some(number) => request.clip_skip(number),
            None => request,
        }
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

    /// What a file's metadata say of the job.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        let texts = self.texts().into_iter();
        let mut metadata: BTreeMap<String, String> = texts
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect();
        let mut add = |name: &str, value: String| metadata.insert(name.to_owned(), value);
        if self.wishes.negative.is_none() {
            add("negative_absent", "true".to_owned());
        }
        add("profile", self.profile().name().to_owned());
        if let Some(number) = self.wishes.clip_skip {
            add("clip_skip", number.to_string());
        }
        if let Some(cleaner) = self.wishes.cleaner {
            add("cleaner", values::cleaner_name(cleaner).to_owned());
        }
        metadata
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
        let (sized, targeted, scored) = match family {
            Family::Sd1 | Family::Sd2 => (false, false, false),
            Family::Sdxl => (true, true, false),
            Family::Refiner => (true, false, true),
        };
        let given = [
            ("a second text", second, two_texts(family)),
            ("a size", wishes.width.is_some(), sized),
            ("a crop", crop, sized),
            ("a target size", wishes.target_width.is_some(), targeted),
            ("an aesthetic score", score, scored),
        ];
        let unused = given.into_iter().filter(|(_, given, used)| *given && !used);
        unused
            .map(|(what, ..)| format!("{what} was given, and {family} takes none: it is not used"))
            .collect()
    }
}

/// Pairs whose sides have more windows than this are encoded alone, to bound the memory of a batch.
const WINDOWS_TOGETHER: usize = 2;

/// Encodes several jobs; one answer for each, in order. Those whose sides have one length anyway
/// share a forward, in which equal texts are encoded once; what fails does so alone.
pub(crate) fn encode_all(text: &Conditioner, jobs: &[&Job]) -> Vec<Result<Guidance>> {
    let shared: Vec<bool> = jobs.iter().map(|job| job.can_share(text)).collect();
    let family = text.family();
    let requests = jobs.iter().zip(&shared).filter(|(_, shared)| **shared);
    let requests = requests.flat_map(|(job, _)| [job.positive(family), job.negative(family)]);
    let requests: Vec<Request<'_>> = requests.collect();
    // A batch that fails as a whole is taken apart below, so that each job fails for itself.
    let sides = text.encode_batch(&requests).unwrap_or_default();
    let mut sides = sides.into_iter();
    let answers = jobs.iter().zip(shared).map(|(job, shared)| {
        let pair = shared.then(|| sides.next().zip(sides.next())).flatten();
        pair.map_or_else(
            || job.encode(text),
            |(positive, negative)| Guidance::new(positive, negative),
        )
    });
    answers.collect()
}

const fn two_texts(family: Family) -> bool {
    matches!(family, Family::Sdxl)
}

/// What was cut, guessed or reproduced, each thing once.
pub(crate) fn notes(guidance: &Guidance) -> Vec<String> {
    let positive = guidance.positive().notes();
    let shared = |note: &Note| note.kind == NoteKind::Length && positive.contains(note);
    let negative = guidance.negative().notes().iter();
    let negative = negative.filter(|note| !shared(note));
    let first = positive.iter().map(|note| ("positive", note));
    first
        .chain(negative.map(|note| ("negative", note)))
        .map(|(side, note)| format!("{side}: {}", note.message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(change: impl FnOnce(&mut Wishes)) -> Wishes {
        let mut wishes = Wishes {
            positive: Some("a cat".to_owned()),
            ..Wishes::default()
        };
        change(&mut wishes);
        wishes
    }

    #[test]
    fn what_belongs_together() {
        let cases = [
            (wishes(|all| all.positive = None), "`positive` is missing"),
            (wishes(|all| all.width = Some(8)), "needs `height`"),
            (wishes(|all| all.height = Some(8)), "needs `width`"),
            (
                wishes(|all| all.target_width = Some(8)),
                "needs `target_height`",
            ),
            (
                wishes(|all| (all.width, all.height) = (Some(0), Some(8))),
                "`width`: a side of 0 pixels",
            ),
            (wishes(|all| all.crop_left = Some(u32::MAX)), "the most"),
            (
                wishes(|all| all.aesthetic_score = Some(f32::NAN)),
                "score of NaN",
            ),
            (
                wishes(|all| all.negative_aesthetic_score = Some(f32::INFINITY)),
                "score of inf",
            ),
            (
                wishes(|all| all.negative_2 = Some(String::new())),
                "needs `negative`",
            ),
        ];
        for (wishes, want) in cases {
            let error = wishes.clone().job().unwrap_err();
            assert!(error.contains(want), "{wishes:?}: {error}");
        }
        assert!(wishes(|_| ()).job().is_ok());
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
