//! The options of `.swap()`.
//!
//! Rules: `CrossAttentionControlSubstitute` in `compel/prompt_parser.py`.

use std::ops::Range;

use super::options::{Choice, Value};
use crate::prompt::Note;

/// From when to when a swap's attention is controlled, as shares of the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwapOptions {
    /// Self-attention: from here.
    pub s_start: f64,
    /// Self-attention: to here. `shape_freedom=f` sets it to one minus the cube root of `f`.
    pub s_end: f64,
    /// Cross-attention: from here.
    pub t_start: f64,
    /// Cross-attention: to here.
    pub t_end: f64,
}

impl Default for SwapOptions {
    fn default() -> SwapOptions {
        SwapOptions {
            s_start: 0.0,
            s_end: 0.0,
            t_start: 0.2,
            t_end: 1.0,
        }
    }
}

/// Reads the choices of a swap; the last one of a name counts.
pub(super) fn read(choices: &[Choice], span: &Range<usize>, notes: &mut Vec<Note>) -> SwapOptions {
    let mut options = SwapOptions::default();
    if let Some(s_end) = end_by_freedom(choices, span, notes) {
        options.s_end = s_end;
    }
    let slots = [
        ("s_start", &mut options.s_start),
        ("s_end", &mut options.s_end),
        ("t_start", &mut options.t_start),
        ("t_end", &mut options.t_end),
    ];
    for (name, slot) in slots {
        match find(choices, name) {
            Some(Value::Number(value)) => *slot = *value,
            Some(Value::Word(word)) => {
                let message = format!("`{name}` must be a number, not `{word}`; ignored");
                notes.push(Note::quirk(span.clone(), message));
            }
            None => {}
        }
    }
    options
}

/// Where `shape_freedom` ends self-attention.
fn end_by_freedom(choices: &[Choice], span: &Range<usize>, notes: &mut Vec<Note>) -> Option<f64> {
    match find(choices, "shape_freedom")? {
        Value::Number(freedom) if *freedom >= 0.0 => Some(1.0 - freedom.powf(1.0 / 3.0)),
        Value::Number(_) | Value::Word(_) => {
            let message = "`shape_freedom` must be a number from 0 on; ignored";
            notes.push(Note::reference_error(span.clone(), message));
            None
        }
    }
}

fn find<'a>(choices: &'a [Choice], name: &str) -> Option<&'a Value> {
    choices.iter().rev().find_map(|choice| match choice {
        Choice::Pair(key, value) if key == name => Some(value),
        Choice::Pair(..) | Choice::Number(_) | Choice::Flag(_) => None,
    })
}
