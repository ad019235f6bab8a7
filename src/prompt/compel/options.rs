//! What stands in the brackets of an operator: weights, flags and `key=value`.

use super::characters::View;
use super::grammar::{self, Read};
use crate::prompt::python;

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    Number(f64),
    Flag(String),
    Pair(String, Value),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Word(String),
}

impl Choice {
    /// As a weight of a blend or conjunction: what `float()` makes of its first part.
    pub(super) fn weight(&self) -> Option<f64> {
        match self {
            Choice::Number(value) => Some(*value),
            Choice::Flag(word) | Choice::Pair(word, _) => python::float(word),
        }
    }

    pub(super) fn is_no_normalize(&self) -> bool {
        match self {
            Choice::Number(_) => false,
            Choice::Flag(word) | Choice::Pair(word, _) => word == "no_normalize",
        }
    }
}

/// Choices with commas between them, or none.
pub(super) fn choices(view: View<'_>, start: usize) -> (Vec<Choice>, usize) {
    let mut choices = Vec::new();
    let mut end = start;
    let mut next = Some(start);
    while let Some((choice, behind)) = next.and_then(|at| choice(view, view.skip_space(at))) {
        choices.push(choice);
        end = behind;
        next = view.literal(end, ",");
    }
    (choices, end)
}

fn choice(view: View<'_>, at: usize) -> Read<Choice> {
    if let Some(((key, value), end)) = pair(view, at) {
        return Some((Choice::Pair(key, value), end));
    }
    if let Some((value, end)) = number(view, at) {
        return Some((Choice::Number(value), end));
    }
    keyword(view, at).map(|(word, end)| (Choice::Flag(word), end))
}

fn pair(view: View<'_>, at: usize) -> Read<(String, Value)> {
    let (key, end) = keyword(view, at)?;
    let at = view.skip_space(view.literal(end, "=")?);
    if let Some((value, end)) = number(view, at) {
        return Some(((key, Value::Number(value)), end));
    }
    keyword(view, at).map(|(word, end)| ((key, Value::Word(word)), end))
}

/// ASCII letters, digits, `_` and `-`.
pub(super) fn keyword(view: View<'_>, at: usize) -> Read<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let end = view.run(at, is_part);
    (end > at).then(|| (view.text(at..end), end))
}

/// A decimal with a dot, a sign and digits of any script, or an integer with an optional minus.
pub(super) fn number(view: View<'_>, at: usize) -> Read<f64> {
    let end = real(view, at).or_else(|| integer(view, at))?;
    Some((grammar::float(view, at..end)?, end))
}

fn real(view: View<'_>, at: usize) -> Option<usize> {
    let is_digit = |character| python::decimal(character).is_some();
    let start = at + usize::from(matches!(view.get(at), Some('+' | '-')));
    let dot = view.run(start, is_digit);
    if view.get(dot) != Some('.') {
        return None;
    }
    let end = view.run(dot + 1, is_digit);
    (dot > start || end > dot + 1).then_some(end)
}

fn integer(view: View<'_>, at: usize) -> Option<usize> {
    let start = at + usize::from(view.get(at) == Some('-'));
    let end = view.run(start, |character| character.is_ascii_digit());
    (end > start).then_some(end)
}
