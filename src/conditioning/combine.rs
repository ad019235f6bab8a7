//! What `ComfyUI`'s conditioning nodes do with two conditionings (`nodes.py`).

use candle_core::Tensor;

use crate::error::{Error, ErrorKind, Result};

use super::Conditioning;

impl Conditioning {
    /// Rows of `other` behind these rows; pooled vector and sizes stay (`ConditioningConcat`).
    pub fn concat(&self, other: &Conditioning) -> Result<Conditioning> {
        self.same_family(other)?;
        let context = Tensor::cat(&[&self.context, &other.context], 1)?;
        Ok(self.with_context(context))
    }

    /// `self · share + other · (1 - share)`, pooled vectors likewise. `other` is cut to the length
    /// of `self` or filled with zeros (`ConditioningAverage`).
    pub fn average(&self, other: &Conditioning, share: f64) -> Result<Conditioning> {
        self.same_family(other)?;
        let (own, theirs) = (self.tokens(), other.tokens());
        let context = other.context.narrow(1, 0, theirs.min(own))?;
        let context = context.pad_with_zeros(1, 0, own.saturating_sub(theirs))?;
        let mix = |to: &Tensor, from: &Tensor| -> Result<Tensor> {
            Ok(((to * share)? + (from * (1.0 - share))?)?)
        };
        let pooled = match (&self.pooled, &other.pooled) {
            (Some(to), Some(from)) => Some(mix(to, from)?),
            (own, theirs) => own.clone().or_else(|| theirs.clone()),
        };
        let mixed = self.with_context(mix(&self.context, &context)?);
        Ok(Conditioning { pooled, ..mixed })
    }

    fn with_context(&self, context: Tensor) -> Conditioning {
        Conditioning {
            context,
            ..self.clone()
        }
    }

    fn same_family(&self, other: &Conditioning) -> Result<()> {
        if self.family == other.family {
            return Ok(());
        }
        let message = format!("conditionings of {} and {}", self.family, other.family);
        Err(Error::new(ErrorKind::Mismatch, message))
    }
}
