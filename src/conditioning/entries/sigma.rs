//! Moments of the sampling: noise levels, and shares of it.

use super::PercentRange;
use crate::error::{Error, ErrorKind, Result};

/// What `ComfyUI` takes for the noise level before the beginning (`percent_to_sigma`,
/// `comfy/model_sampling.py`).
const BEFORE_ALL: f64 = 999_999_999.9;

/// A moment of the sampling.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// A share: 0 is pure noise, 1 the picture.
    Percent(f64),
    /// A noise level of a model.
    Sigma {
        /// The noise level.
        sigma: f64,
        /// The model's noise levels.
        table: &'a SigmaTable,
    },
}

impl Moment<'_> {
    pub(super) fn is_within(self, range: PercentRange) -> bool {
        match self {
            Moment::Percent(share) => (range.start..=range.end).contains(&share),
            Moment::Sigma { sigma, table } => {
                sigma <= table.at_percent(range.start) && sigma >= table.at_percent(range.end)
            }
        }
    }
}

/// The noise levels a model was trained with, by timestep.
#[derive(Clone, Debug)]
pub struct SigmaTable {
    /// Ascending.
    logarithms: Vec<f64>,
}

impl SigmaTable {
    /// Stable Diffusion 1.x, 2.x, SDXL and its refiner: 1000 steps, betas from 0.00085 to 0.012 whose
    /// roots are evenly spaced (`make_beta_schedule`, ldm/modules/diffusionmodules/util.py).
    pub fn stable_diffusion() -> SigmaTable {
        let [first, last] = [0.000_85_f64.sqrt(), 0.012_f64.sqrt()];
        let beta = |step: u32| (first + (last - first) * f64::from(step) / 999.0).powi(2);
        let mut left = 1.0;
        let logarithms = (0..1000).map(|step| {
            left *= 1.0 - beta(step);
            ((1.0 - left) / left).sqrt().ln()
        });
        SigmaTable {
            logarithms: logarithms.collect(),
        }
    }

    /// Another model's, ascending: positive, finite numbers, at least one.
    pub fn new(sigmas: &[f64]) -> Result<SigmaTable> {
        let sound = sigmas.iter().all(|sigma| sigma.is_finite() && *sigma > 0.0)
            && sigmas.is_sorted()
            && !sigmas.is_empty();
        if !sound {
            let message = "noise levels must be positive, finite and ascending";
            return Err(Error::new(ErrorKind::Request, message));
        }
        Ok(SigmaTable {
            logarithms: sigmas.iter().map(|sigma| sigma.ln()).collect(),
        })
    }

    /// The noise level at a share of the sampling: 0 is above all, 1 is none, and between them the
    /// table is read from its end, its logarithm interpolated (`percent_to_sigma`).
    pub fn at_percent(&self, percent: f64) -> f64 {
        if percent <= 0.0 {
            return BEFORE_ALL;
        }
        if percent >= 1.0 {
            return 0.0;
        }
        let last = self.logarithms.len() - 1;
        // 999 whatever the table's length, as the reference has it.
        let place = ((1.0 - percent) * 999.0).clamp(0.0, last as f64);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the table just before"
        )]
        let low = place.floor() as usize;
        let share = place - place.floor();
        let high = (low + 1).min(last);
        let [low, high] = [low, high].map(|place| self.logarithms[place]);
        ((1.0 - share) * low + share * high).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest and smallest noise level of the published models, and the level in the middle.
    #[test]
    fn the_published_levels() {
        let table = SigmaTable::stable_diffusion();
        let close = |percent: f64, want: f64| {
            let found = table.at_percent(percent);
            assert!((found - want).abs() < 1e-3 * want, "{percent}: {found}");
        };
        close(1e-12, 14.6146);
        close(1.0 - 1e-12, 0.029_17);
        close(0.5, 1.6155);
        assert!(table.at_percent(0.0) > 9e8);
        assert!(table.at_percent(1.0) < 1e-300);
    }

    #[test]
    fn a_table_must_ascend() {
        for wrong in [&[][..], &[1.0, 0.5], &[0.0, 1.0], &[f64::NAN], &[-1.0]] {
            assert!(SigmaTable::new(wrong).is_err(), "{wrong:?}");
        }
        let short = SigmaTable::new(&[0.1, 10.0]).unwrap();
        assert!((short.at_percent(0.01) - 10.0).abs() < 1e-9);
    }
}
