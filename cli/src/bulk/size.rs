//! How large a line's results will be, before anything is encoded.

use anyhow::{Result, bail};
use sd_conditioner::conditioner::FORM_WINDOWS_AT_MOST;
use sd_conditioner::conditioning::common_length;
use sd_conditioner::prompt::compose;
use sd_conditioner::prompt::schedule::{Pass, Schedule};
use sd_conditioner::tokens::{CONTEXT, Chunk};
use sd_conditioner::{Conditioner, Dialect, Emphasis};

use crate::job::{Job, Side};
use crate::schedules::Steps;
use crate::together::Plan;

/// Windows of one request, both sides and those that its emphasis needs: no more than the library lets the
/// emphasis of one text need.
const WINDOWS_AT_MOST: usize = FORM_WINDOWS_AT_MOST;

/// Bytes of one request's results in f32, and of its windows' states.
const BYTES_AT_MOST: u64 = 1 << 30;

/// Bytes of the texts of a schedule's steps.
const TEXTS_AT_MOST: usize = 64 << 20;

/// Texts of so many bytes are planned without a look before.
const SHORT: usize = 2048;

/// Pooled vectors, sizes, and what they are embedded to, of one side.
const VECTORS: u64 = 32 << 10;

/// Knows how large a row is.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    text: Conditioner,
    /// Bytes of a row of the context in f32.
    row: u64,
}

impl Scale {
    pub(super) fn of(text: &Conditioner) -> Scale {
        let widths = text.encoders().map(|clip| clip.config().width as u64);
        Scale {
            text: text.clone(),
            row: 4 * widths.sum::<u64>(),
        }
    }

    /// Refuses texts whose plan alone would be too large: with some kinds of emphasis it grows with
    /// the square of a text.
    pub(super) fn look(&self, job: &Job) -> Result<()> {
        let n_bytes: usize = job.texts().iter().map(|(_, text)| text.len()).sum();
        if n_bytes <= SHORT {
            return Ok(());
        }
        let mut needed: usize = 0;
        for side in job.sides() {
            let request = job.request(self.text.family(), *side);
            // Empty windows that are added have no forms.
            let request = request.emphasis(Emphasis::Ignore).least_windows(0);
            let plain = self.text.chunks(request)?;
            let most = plain.iter().map(|(_, chunks)| {
                let forms = forms(job.choices().emphasis, chunks.iter());
                chunks.len().get().saturating_mul(forms)
            });
            needed = needed.saturating_add(most.max().unwrap_or(0));
        }
        self.bound(needed, 0)
    }

    /// Bytes of what a plan gives. Refuses one that is too large.
    pub(super) fn of_plan(&self, plan: &Plan, n_windows: usize) -> Result<u64> {
        let bytes = plan.rows().into_iter().map(|rows| self.side(rows)).sum();
        self.bound(n_windows, bytes)?;
        Ok(bytes)
    }

    /// The same for a job that is planned while it is encoded.
    pub(super) fn of_job(&self, job: &Job, n_windows: usize) -> Result<u64> {
        if let Some(steps) = job.steps() {
            let bytes = self.of_steps(job, steps)?;
            self.bound(n_windows, bytes)?;
            return Ok(bytes);
        }
        let sides = job.sides().iter();
        let rows = sides.map(|side| self.rows(job, *side, job.text(*side)));
        let rows: Vec<usize> = rows.collect::<Result<_>>()?;
        let longest = rows.iter().copied().max().unwrap_or(0);
        let common = match rows[..] {
            [one, two] => common_length(one, two),
            _ => None,
        };
        let bytes = rows.len() as u64 * self.side(common.unwrap_or(longest));
        self.bound(n_windows, bytes)?;
        Ok(bytes)
    }

    /// Every entry of every pass.
    fn of_steps(&self, job: &Job, steps: Steps) -> Result<u64> {
        let dialect = job.choices().dialect;
        let mut bytes: u64 = 0;
        for side in job.sides().iter().copied() {
            let whole = job.text(side).unwrap_or_default();
            let parts = match (side, dialect) {
                (Side::Positive, Dialect::A1111) => compose::split(whole),
                _ => Vec::new(),
            };
            let parts = parts.iter().map(|part| part.text.as_str());
            let parts = if parts.len() == 0 {
                vec![whole]
            } else {
                parts.collect()
            };
            for part in parts {
                let each = self.side(self.rows(job, side, Some(part))?);
                for pass in steps.passes() {
                    let entries = entries(part, pass.pass, dialect)? as u64;
                    bytes = bytes.saturating_add(each.saturating_mul(entries));
                }
                self.bound(0, bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Bytes of one side with so many rows.
    fn side(&self, rows: usize) -> u64 {
        (rows as u64)
            .saturating_mul(self.row)
            .saturating_add(VECTORS)
    }

    fn rows(&self, job: &Job, side: Side, text: Option<&str>) -> Result<usize> {
        let request = job.request_of(self.text.family(), side, text);
        let chunks = self.text.chunks(request)?;
        let windows = chunks.iter().map(|(_, chunks)| chunks.len().get());
        Ok(windows.max().unwrap_or(1) * CONTEXT)
    }

    fn bound(&self, windows: usize, bytes: u64) -> Result<()> {
        let states = self.side(windows.saturating_mul(CONTEXT));
        let large = bytes.max(states);
        if windows <= WINDOWS_AT_MOST && large <= BYTES_AT_MOST {
            return Ok(());
        }
        bail!(
            "too large: {windows} windows, {} MiB in f32; one request may have {WINDOWS_AT_MOST} windows \
             and {} MiB",
            large >> 20,
            BYTES_AT_MOST >> 20
        )
    }
}

/// How often a text is encoded in other forms at most, beside itself.
fn forms<'a>(emphasis: Emphasis, chunks: impl Iterator<Item = &'a Chunk>) -> usize {
    let each_word = matches!(
        emphasis,
        Emphasis::Compel | Emphasis::CompelRemove | Emphasis::Adv(_)
    );
    if !each_word {
        return 2;
    }
    let words = chunks.map(|chunk| {
        let rows = chunk.segments().iter().zip(chunk.strengths());
        let mut last = 0;
        let mut starts = |(segment, strength): (&u32, &f64)| {
            let begins = *segment != last && (*strength - 1.0).abs() > f64::EPSILON;
            last = *segment;
            begins
        };
        rows.filter(|row| starts(*row)).count()
    });
    2 + words.sum::<usize>()
}

/// How many texts one text is over the steps of a pass.
fn entries(text: &str, pass: Pass, dialect: Dialect) -> Result<usize> {
    if dialect != Dialect::A1111 {
        return Ok(1);
    }
    let most = if text.contains('|') {
        pass.steps() as usize
    } else {
        text.matches('[').count() + 1
    };
    if most.saturating_mul(text.len()) > TEXTS_AT_MOST {
        bail!(
            "too large: {} bytes of text that change up to {most} times; together they may be {} MiB",
            text.len(),
            TEXTS_AT_MOST >> 20
        );
    }
    Ok(Schedule::parse(text, pass).entries().len())
}

#[cfg(test)]
mod tests {
    use sd_conditioner::Family;
    use sd_conditioner::candle_core::DType;
    use sd_conditioner::weights::SyntheticSize;

    use super::*;
    use crate::job::Only;
    use crate::output;
    use crate::together::{self, Made};
    use crate::wishes::Wishes;

    fn text(family: Family) -> Conditioner {
        let text = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 1);
        text.unwrap()
    }

    fn job(positive: &str, change: impl FnOnce(&mut Wishes)) -> Job {
        let mut wishes = Wishes {
            positive: Some(positive.to_owned()),
            negative: Some("fog".to_owned()),
            ..Wishes::default()
        };
        change(&mut wishes);
        wishes.job().unwrap()
    }

    fn a1111(wishes: &mut Wishes) {
        wishes.manner.profile = Some(sd_conditioner::Profile::A1111);
    }

    fn steps(wishes: &mut Wishes) {
        a1111(wishes);
        (wishes.steps, wishes.hires_steps) = (Some(8), Some(6));
    }

    /// Bytes of all tensors, as they are written in f32.
    fn bytes(made: &Made) -> u64 {
        let named = match made {
            Made::Sides(sides) => output::of_sides(sides, DType::F32),
            Made::Passes(passes) => output::of_passes(passes, DType::F32),
        };
        let counts = named.unwrap().into_values();
        counts.map(|tensor| 4 * tensor.elem_count() as u64).sum()
    }

    /// What is foreseen is not less than what comes, and not much more.
    #[test]
    fn results_are_as_large_as_foreseen() {
        let long = "a wooden bridge, crowded with people, ".repeat(40);
        for family in Family::ALL {
            let text = text(family);
            let scale = Scale::of(&text);
            let jobs = [
                job("a cat", |_| ()),
                job(&long, |_| ()),
                job(&long, a1111),
                job("a [cat|dog] AND a [hat:bat:0.5]", steps),
                job(&format!("{long} [a|b] AND {long} AND fog"), steps),
            ];
            let alone = jobs.clone().map(|job| job.with_only(Some(Only::Positive)));
            for job in jobs.into_iter().chain(alone) {
                let foreseen = match together::plan(&text, &job).unwrap() {
                    Some(plan) => scale.of_plan(&plan, 2),
                    None => scale.of_job(&job, 2),
                };
                let (foreseen, made) = (foreseen.unwrap(), together::encode(&text, &job).unwrap());
                let made = bytes(&made);
                let slack =
                    8 * VECTORS + made / 4 + 40 * VECTORS * u64::from(job.steps().is_some());
                assert!(
                    made <= foreseen && foreseen <= made + slack,
                    "{family} {made} {foreseen}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_planned() {
        let text = text(Family::Sd1);
        let scale = Scale::of(&text);
        let refused = |job: &Job| {
            let error = scale
                .look(job)
                .and_then(|()| scale.of_job(job, 2).map(|_| ()));
            error.unwrap_err().to_string()
        };
        let words = "word ".repeat(200_000);
        assert!(refused(&job(&words, a1111)).contains("one request may have 4096 windows"));
        // Fewer words, each of which asks for all others once more.
        let weighted = "(word:1.3) ".repeat(5000);
        let adv = |wishes: &mut Wishes| {
            wishes.manner.emphasis = Emphasis::named("adv:none:comfy++");
            wishes.manner.profile = Some(sd_conditioner::Profile::ComfyUi);
        };
        assert!(scale.look(&job(&weighted, a1111)).is_ok());
        assert!(refused(&job(&weighted, adv)).contains("windows"));
        let changing = format!("[a|b] {}", "word ".repeat(10_000));
        let many = |wishes: &mut Wishes| {
            steps(wishes);
            wishes.steps = Some(2000);
        };
        assert!(refused(&job(&changing, many)).contains("too large"));
        assert!(scale.look(&job(&words[..100_000], a1111)).is_ok());
    }
}
