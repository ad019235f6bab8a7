//! The custom node `ComfyUI_ADV_CLIP_emb` (`adv_encode.py`): strengths are normalized first, then
//! read in one of five ways.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use super::{Encoding, Stage, rows};
use crate::error::Result;
use crate::tokens::{CONTEXT, Chunk, Chunks, TokenId};

/// `+</w>`. The node means the comma, which is one further.
const MASK_TOKEN: TokenId = 266;

/// A setting of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adv {
    /// What is done to strengths first.
    pub normalization: Normalization,
    /// What a strength means.
    pub interpretation: Interpretation,
    /// SDXL's balance of its encoders: above 0.5 ViT-L is weakened, below it ViT-bigG.
    pub balance: f64,
    /// Which rows its down-weighting masks.
    pub masking: Masking,
    /// Hands on what the node calls a pooled vector under "affect pooled": for the three methods
    /// with masks it is made from row 76 of the first window, not from the end token.
    pub affect_pooled: bool,
}

/// What is done to strengths before they are read (`token_normalization`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Shifted so that the mean over all words' tokens is 1.
    Mean,
    /// The distance from 1 divided by the root of the segment's length.
    Length,
    /// Length, then mean.
    LengthMean,
}

/// What a strength means (`weight_interpretation`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpretation {
    /// As `ComfyUI`.
    Comfy,
    /// `z · w`, the mean of all windows restored.
    A1111,
    /// Above 1 as `ComfyUI`, below 1 a mix with masked prompts.
    Compel,
    /// Above 1 away from the prompt without the word, below 1 a mix with masked prompts.
    ComfyPlusPlus,
    /// Scaled so that the largest is 1, then a mix with masked prompts.
    DownWeight,
}

/// Which rows down-weighting masks: the node was written for numpy 1, and numpy 2 has changed the
/// shape of what `np.unique(return_inverse=True)` gives.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Masking {
    /// With numpy 2: row 0 of the first window, the start token, and for a word of the n-th window
    /// row n of the first. This is what the node computes today.
    Numpy2,
    /// With numpy 1, as it was meant: the rows of the down-weighted words.
    Numpy1,
}

impl Adv {
    /// The node's defaults: balanced, pooled vector untouched.
    pub const fn new(normalization: Normalization, interpretation: Interpretation) -> Adv {
        Adv {
            normalization,
            interpretation,
            balance: 0.5,
            masking: Masking::Numpy2,
            affect_pooled: false,
        }
    }

    /// What ViT-L's and ViT-bigG's states are multiplied with (`prepareXL`).
    pub(crate) fn balances(self) -> [f64; 2] {
        [
            1.0 - (self.balance - 0.5).max(0.0) * 2.0,
            1.0 - (0.5 - self.balance).max(0.0) * 2.0,
        ]
    }
}

/// All rows of all windows as one list.
struct Plan {
    /// Normalized strengths.
    strengths: Vec<f64>,
    /// Segment numbers; 0 for start, end and padding.
    words: Vec<u32>,
}

impl Plan {
    fn of(adv: Adv, chunks: &Chunks) -> Plan {
        let words: Vec<u32> = chunks.iter().flat_map(|chunk| *chunk.segments()).collect();
        let mut strengths = rows::strengths(chunks);
        let (length, mean) = match adv.normalization {
            Normalization::None => (false, false),
            Normalization::Mean => (false, true),
            Normalization::Length => (true, false),
            Normalization::LengthMean => (true, true),
        };
        if length {
            divide_by_length(&mut strengths, &words);
        }
        if mean {
            shift_to_mean(&mut strengths, &words);
        }
        if adv.interpretation == Interpretation::DownWeight {
            scale_to_largest(&mut strengths, &words);
        }
        Plan { strengths, words }
    }

    /// Strengths below 1, ascending, each once.
    fn below_one(&self) -> Vec<f64> {
        let mut below: Vec<f64> = self
            .strengths
            .iter()
            .copied()
            .filter(|s| *s < 1.0)
            .collect();
        below.sort_by(f64::total_cmp);
        below.dedup();
        below
    }

    /// The rows that are masked for all strengths up to a limit.
    fn masked_up_to(&self, limit: f64, masking: Masking) -> Vec<usize> {
        let meant = self.rows_where(|_, strength| strength <= limit);
        match masking {
            Masking::Numpy1 => meant,
            Masking::Numpy2 => meant.into_iter().map(|row| row / CONTEXT).collect(),
        }
    }

    /// Segments above 1, ascending, with the strength of their first token.
    fn above_one(&self) -> Vec<(u32, f64)> {
        let mut above: BTreeMap<u32, f64> = BTreeMap::new();
        for (word, strength) in self.words.iter().zip(&self.strengths) {
            if *strength > 1.0 {
                above.entry(*word).or_insert(*strength);
            }
        }
        above.into_iter().collect()
    }

    /// Strengths, those below 1 as 1.
    fn at_least_one(&self) -> Vec<f64> {
        self.strengths.iter().map(|s| s.max(1.0)).collect()
    }

    /// The same, and the masks that stand for all strengths up to a limit, which have strength 1. With
    /// [`Masking::Numpy2`] one may stand in a row of a strength above 1.
    fn beside_masks(&self, limit: f64, masking: Masking) -> Vec<f64> {
        let mut strengths = self.at_least_one();
        for row in self.masked_up_to(limit, masking) {
            strengths[row] = 1.0;
        }
        strengths
    }

    fn rows_where(&self, meant: impl Fn(u32, f64) -> bool) -> Vec<usize> {
        let both = self.words.iter().zip(&self.strengths).enumerate();
        both.filter(|(_, (word, strength))| meant(**word, **strength))
            .map(|(row, _)| row)
            .collect()
    }
}

fn divide_by_length(strengths: &mut [f64], words: &[u32]) {
    let mut lengths: HashMap<u32, usize> = HashMap::new();
    for word in words {
        *lengths.entry(*word).or_default() += 1;
    }
    for (strength, word) in strengths
        .iter_mut()
        .zip(words)
        .filter(|(_, word)| **word != 0)
    {
        let distance = *strength - 1.0;
        let share = (distance.abs().powi(2) / lengths[word] as f64).sqrt();
        *strength = 1.0
            + if distance == 0.0 {
                0.0
            } else {
                share.copysign(distance)
            };
    }
}

fn shift_to_mean(strengths: &mut [f64], words: &[u32]) {
    let content = || strengths.iter().zip(words).filter(|(_, word)| **word != 0);
    let mean = content().map(|(strength, _)| strength).sum::<f64>() / content().count() as f64;
    let shift = 1.0 - mean;
    for (strength, _) in strengths
        .iter_mut()
        .zip(words)
        .filter(|(_, word)| **word != 0)
    {
        *strength += shift;
    }
}

/// Start, end and padding have strength 1, so the largest is at least that.
fn scale_to_largest(strengths: &mut [f64], words: &[u32]) {
    let top = strengths.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let most = top.min(1.0);
    for (strength, word) in strengths.iter_mut().zip(words) {
        *strength = if *word == 0 {
            most
        } else {
            *strength / top * most
        };
    }
}

/// The windows with the mask token in some rows.
fn masked(chunks: &Chunks, meant: &[usize]) -> Stage {
    let mask = |(window, chunk): (usize, &Chunk)| {
        let here = meant.iter().filter(|row| **row / CONTEXT == window);
        let here: Vec<usize> = here.map(|row| row % CONTEXT).collect();
        chunk.clone().with_ids(&here, MASK_TOKEN)
    };
    Stage::of(chunks.iter().enumerate().map(mask).collect())
}

/// How many forms of the whole text [`stages`] makes.
pub(super) fn n_forms(adv: Adv, chunks: &Chunks) -> usize {
    let plan = || Plan::of(adv, chunks);
    match adv.interpretation {
        Interpretation::Comfy | Interpretation::A1111 => 0,
        Interpretation::Compel | Interpretation::DownWeight => plan().below_one().len(),
        Interpretation::ComfyPlusPlus => {
            let plan = plan();
            plan.below_one().len() + plan.above_one().len()
        }
    }
}

/// First the empty prompt if strengths above 1 need it, then the cumulative masks, then the masks
/// of single words.
pub(super) fn stages(adv: Adv, chunks: &Chunks) -> Vec<Stage> {
    let plan = Plan::of(adv, chunks);
    let down = || {
        let below = plan.below_one();
        let mask = |limit: f64| masked(chunks, &plan.masked_up_to(limit, adv.masking));
        below.into_iter().map(mask).collect::<Vec<_>>()
    };
    let empty = || vec![Stage::empty(chunks)];
    match adv.interpretation {
        Interpretation::Comfy => empty(),
        Interpretation::A1111 => Vec::new(),
        Interpretation::Compel => [empty(), down()].concat(),
        Interpretation::DownWeight => down(),
        Interpretation::ComfyPlusPlus => {
            let up = plan.above_one().into_iter();
            let up = up.map(|(word, _)| masked(chunks, &plan.rows_where(|w, _| w == word)));
            down().into_iter().chain(up).collect()
        }
    }
}

pub(super) fn apply(adv: Adv, one: &Encoding<'_>) -> Result<Tensor> {
    let plan = Plan::of(adv, one.chunks);
    let stages = one.stages.iter().map(|stage| stage.hidden.clone());
    let stages: Vec<Tensor> = stages.collect();
    match adv.interpretation {
        Interpretation::Comfy => rows::away_from(&stages[0], &one.hidden, &plan.strengths),
        Interpretation::A1111 => {
            let after = rows::scaled(&one.hidden, &plan.strengths)?;
            rows::mean_restored(&one.hidden, &after)
        }
        Interpretation::DownWeight => down_weighted(&plan, &one.hidden, &stages),
        Interpretation::ComfyPlusPlus => {
            let (down, up) = stages.split_at(plan.below_one().len());
            let mixed = down_weighted(&plan, &one.hidden, down)?;
            up_weighted(&plan, &one.hidden, up, mixed)
        }
        Interpretation::Compel => {
            let positive = plan.at_least_one();
            let base = rows::away_from(&stages[0], &one.hidden, &positive)?;
            let down = plan.below_one().into_iter().zip(&stages[1..]);
            let down = down.map(|(limit, stage)| {
                let strengths = plan.beside_masks(limit, adv.masking);
                rows::away_from(&stages[0], stage, &strengths)
            });
            down_weighted(&plan, &base, &down.collect::<Result<Vec<_>>>()?)
        }
    }
}

/// `w0 · base + (w1 - w0) · stage1 + … + (1 - w_last) · stage_last`
fn down_weighted(plan: &Plan, base: &Tensor, stages: &[Tensor]) -> Result<Tensor> {
    let below = plan.below_one();
    if below.is_empty() {
        return Ok(base.clone());
    }
    let ends = below.iter().copied().chain([1.0]);
    let starts = std::iter::once(0.0).chain(below.iter().copied());
    let shares = ends.zip(starts).map(|(end, start)| end - start);
    let mut sum = base.zeros_like()?;
    for (version, share) in std::iter::once(base).chain(stages).zip(shares) {
        sum = (sum + (version * f64::from(rows::f32_of(share)))?)?;
    }
    Ok(sum)
}

/// Adds `(w - 1) · (base - base without the word)` to each word's rows.
fn up_weighted(plan: &Plan, base: &Tensor, stages: &[Tensor], sum: Tensor) -> Result<Tensor> {
    let mut sum = sum;
    for (stage, (word, _)) in stages.iter().zip(plan.above_one()) {
        let more = plan.words.iter().zip(&plan.strengths);
        let more: Vec<f64> = more
            .map(|(other, strength)| {
                if *other == word {
                    strength.max(1.0) - 1.0
                } else {
                    0.0
                }
            })
            .collect();
        let more = rows::column(&more, base)?;
        sum = (sum + (base - stage)?.broadcast_mul(&more)?)?;
    }
    Ok(sum)
}

/// Row 76 of the first window.
fn last_row(hidden: &Tensor) -> Result<Tensor> {
    Ok(hidden
        .narrow(0, 0, 1)?
        .narrow(1, CONTEXT - 1, 1)?
        .squeeze(1)?)
}

/// The node's "pooled": rows 76 of first windows, mixed like the rest.
pub(super) fn pooled(adv: Adv, one: &Encoding<'_>) -> Result<Option<Tensor>> {
    match adv.interpretation {
        Interpretation::Comfy | Interpretation::A1111 => Ok(None),
        Interpretation::Compel | Interpretation::DownWeight => {
            Ok(Some(last_row(&apply(adv, one)?)?))
        }
        Interpretation::ComfyPlusPlus => {
            let plan = Plan::of(adv, one.chunks);
            let base = last_row(&one.hidden)?;
            let words = plan.above_one();
            if words.is_empty() {
                return Ok(Some(base));
            }
            // The node multiplies the differences with their masks in place before it uses row 76,
            // which no mask holds: only the base is left of it.
            let more: f64 = words.iter().map(|(_, strength)| strength - 1.0).sum();
            let more = f64::from(rows::f32_of(more / words.len() as f64));
            Ok(Some((&base - (&base * more)?)?))
        }
    }
}
