//! A1111's `AND`: several prompts for one image, each with a weight.
//!
//! Rules: `get_multicond_prompt_list` in AUTOMATIC1111's `modules/prompt_parser.py`. It comes before
//! schedules and emphasis and knows no brackets. Only positive prompts are read like this, and a
//! weight at the end counts without any `AND`, too: `a sign, 4:3` is `a sign, 4` with weight 3.

use std::ops::Range;

use super::{Strength, python};

/// One prompt of a composition.
#[derive(Clone, Debug, PartialEq)]
pub struct ComposedPrompt {
    /// Its text; schedules and emphasis are still to be read.
    pub text: String,
    /// Multiplies the guidance of this prompt.
    pub weight: Strength,
    /// Where the text stands in the source.
    pub span: Range<usize>,
}

/// Splits a positive prompt at the word `AND`. There is always at least one part.
///
/// ```
/// let parts = sd_conditioner::prompt::compose::split("a cat:0.5 AND a dog");
/// assert_eq!((parts[0].text.as_str(), parts[0].weight.get()), ("a cat", 0.5));
/// assert_eq!((parts[1].text.as_str(), parts[1].weight.get()), (" a dog", 1.0));
/// ```
pub fn split(text: &str) -> Vec<ComposedPrompt> {
    let mut parts = Vec::new();
    let mut from = 0;
    for at in python::find_words(text, "AND") {
        parts.push(part(text, from..at));
        from = at + "AND".len();
    }
    parts.push(part(text, from..text.len()));
    parts
}

fn part(text: &str, span: Range<usize>) -> ComposedPrompt {
    let whole = text[span.clone()].trim_end_matches(python::is_space);
    let weighted = whole.rsplit_once(':').and_then(|(before, number)| {
        let weight = decimal(python::strip(number))?;
        Some((before.trim_end_matches(python::is_space), weight))
    });
    let (text, weight) = weighted.unwrap_or((whole, 1.0));
    let span = span.start..span.start + text.len();
    ComposedPrompt {
        text: text.to_owned(),
        weight: Strength::new(weight),
        span,
    }
}

/// A number with an optional sign and at most one dot, in digits of any script, no exponent.
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_plain = unsigned
        .chars()
        .all(|c| c == '.' || python::decimal(c).is_some());
    if is_plain { python::float(text) } else { None }
}
