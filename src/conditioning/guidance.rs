//! POSITIVE AND NEGATIVE → GUIDANCE: two conditionings that belong together, apart or as one batch.

use candle_core::Tensor;

use super::Conditioning;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::Family;

/// A positive and a negative conditioning of one length: what classifier-free guidance takes.
#[derive(Clone, Debug)]
pub struct Guidance {
    positive: Conditioning,
    negative: Conditioning,
}

impl Guidance {
    /// Joins two conditionings; refuses different families or lengths, and a pooled vector or size numbers
    /// that only one side has where the family's U-Net takes them.
    pub fn new(positive: Conditioning, negative: Conditioning) -> Result<Guidance> {
        if positive.family != negative.family || positive.tokens() != negative.tokens() {
            let message = format!(
                "positive ({}, {} rows) and negative ({}, {} rows) differ",
                positive.family,
                positive.tokens(),
                negative.family,
                negative.tokens()
            );
            return Err(Error::new(ErrorKind::Mismatch, message)
                .hint("Conditioner::encode_pair brings both to one length"));
        }
        let guidance = Guidance { positive, negative };
        match guidance.positive.family {
            Family::Sd1 | Family::Sd2 => {}
            Family::Sdxl | Family::Refiner => guidance.expect_alike()?,
        }
        Ok(guidance)
    }

    /// Refuses a part that only one side has.
    fn expect_alike(&self) -> Result<()> {
        let (positive, negative) = (&self.positive, &self.negative);
        let both = [
            ("pooled vector", positive.pooled(), negative.pooled()),
            ("size numbers", positive.time_ids(), negative.time_ids()),
        ];
        for (what, positive, negative) in both {
            let (lacks, has) = match (positive, negative) {
                (Some(_), Some(_)) | (None, None) => continue,
                (None, Some(_)) => ("positive", "negative"),
                (Some(_), None) => ("negative", "positive"),
            };
            let message = format!("the {lacks} side has no {what}, and the {has} one does");
            let hint = "make both sides with one profile and kind of pooled vector, as Conditioner::encode_pair does";
            return Err(Error::new(ErrorKind::Mismatch, message).hint(hint));
        }
        Ok(())
    }

    /// The positive prompt's.
    pub fn positive(&self) -> &Conditioning {
        &self.positive
    }

    /// The negative prompt's.
    pub fn negative(&self) -> &Conditioning {
        &self.negative
    }

    /// Both as one batch of two, negative first: `noise = negative + scale · (positive − negative)`.
    /// Refuses ([`ErrorKind::Mismatch`]) a part that only one side has, which a batch has no place for.
    pub fn stacked(&self) -> Result<Conditioning> {
        self.expect_alike()?;
        let (first, second) = (&self.negative, &self.positive);
        let join = |a: Option<&Tensor>, b: Option<&Tensor>| -> Result<Option<Tensor>> {
            Ok(a.zip(b).map(|(a, b)| Tensor::cat(&[a, b], 0)).transpose()?)
        };
        let notes = first.notes.iter().chain(&second.notes).cloned().collect();
        Ok(Conditioning {
            family: first.family,
            context: Tensor::cat(&[&first.context, &second.context], 0)?,
            pooled: join(first.pooled(), second.pooled())?,
            time_ids: join(first.time_ids(), second.time_ids())?,
            notes,
        })
    }
}
