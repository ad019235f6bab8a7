//! What is asked for → a job that makes sense.

use sd_conditioner::SizeHints;

use crate::embeddings::EmbeddingFile;
use crate::flags::{EncodeFlags, TokensFlags};
use crate::groups::{MannerFlags, TextFlags};
use crate::job::Job;
use crate::loras::LoraFile;
use crate::manner::Manner;
use crate::schedules::Steps;
use crate::values;

/// Everything that can be asked for; `None` where it was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) positive: Option<String>,
    pub(crate) positive_2: Option<String>,
    pub(crate) negative: Option<String>,
    pub(crate) negative_2: Option<String>,
    pub(crate) manner: Manner,
    pub(crate) steps: Option<u32>,
    pub(crate) hires_steps: Option<u32>,
    /// Files beside those of the folder; `None` where not even the folder's are wanted.
    pub(crate) embeddings: Option<Vec<EmbeddingFile>>,
    /// Files that are put on; `None` where not even a prompt's own are wanted.
    pub(crate) loras: Option<Vec<LoraFile>>,
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

impl From<&EncodeFlags> for Wishes {
    fn from(flags: &EncodeFlags) -> Wishes {
        let sizes = &flags.sizes;
        Wishes {
            loras: Some(flags.lora.clone()),
            clip_skip: flags.clip_skip,
            width: sizes.size.map(|size| size.width),
            height: sizes.size.map(|size| size.height),
            crop_left: sizes.crop.map(|point| point.left),
            crop_top: sizes.crop.map(|point| point.top),
            target_width: sizes.target_size.map(|size| size.width),
            target_height: sizes.target_size.map(|size| size.height),
            aesthetic_score: sizes.aesthetic_score,
            negative_aesthetic_score: sizes.negative_aesthetic_score,
            ..Wishes::of(&flags.texts, &flags.manner)
        }
    }
}

impl From<&TokensFlags> for Wishes {
    fn from(flags: &TokensFlags) -> Wishes {
        Wishes::of(&flags.texts, &flags.manner)
    }
}

impl Wishes {
    fn of(texts: &TextFlags, manner: &MannerFlags) -> Wishes {
        Wishes {
            positive: texts.positive.clone(),
            positive_2: texts.positive_2.clone(),
            negative: texts.negative.clone(),
            negative_2: texts.negative_2.clone(),
            manner: Manner::from(manner),
            steps: manner.steps,
            hires_steps: manner.hires_steps,
            embeddings: Some(Vec::new()),
            loras: Some(Vec::new()),
            ..Wishes::default()
        }
    }

    /// Checks what belongs together.
    pub(crate) fn job(mut self) -> Result<Job, String> {
        let positive = self.positive.take().ok_or("`positive` is missing")?;
        if self.negative_2.is_some() && self.negative.is_none() {
            return Err("`negative_2` needs `negative` (which may be empty)".to_owned());
        }
        let size = self.size()?;
        let steps = Steps::of(self.steps, self.hires_steps)?;
        Ok(Job::new(self, positive, size, steps))
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

    type Change = fn(&mut Wishes);

    /// What is changed, and what is then said.
    const BAD: [(Change, &str); 11] = [
        (|all| all.positive = None, "`positive` is missing"),
        (|all| all.width = Some(8), "needs `height`"),
        (|all| all.height = Some(8), "needs `width`"),
        (|all| all.target_width = Some(8), "needs `target_height`"),
        (
            |all| (all.width, all.height) = (Some(0), Some(8)),
            "`width`: a side of 0 pixels",
        ),
        (|all| all.crop_left = Some(u32::MAX), "the most"),
        (|all| all.aesthetic_score = Some(f32::NAN), "score of NaN"),
        (
            |all| all.negative_aesthetic_score = Some(f32::INFINITY),
            "score of inf",
        ),
        (
            |all| all.hires_steps = Some(5),
            "`hires_steps` needs `steps`",
        ),
        (|all| all.steps = Some(0), "`steps`: 0 steps"),
        (
            |all| all.negative_2 = Some(String::new()),
            "needs `negative`",
        ),
    ];

    #[test]
    fn what_belongs_together() {
        for (change, want) in BAD {
            let wishes = wishes(change);
            let error = wishes.clone().job().unwrap_err();
            assert!(error.contains(want), "{wishes:?}: {error}");
        }
        assert!(wishes(|_| ()).job().is_ok());
    }
}
