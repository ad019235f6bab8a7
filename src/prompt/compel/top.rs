//! The outermost level: a conjunction, a blend, or a plain prompt.

use std::ops::Range;

use super::characters::{Characters, View};
use super::flatten::{Flat, flatten};
use super::grammar::{self, Grammar, Inside, Node, Read};
use super::options::{self, Choice};
use super::{Conjunction, Part};
use crate::prompt::{Note, Piece, Strength};

/// `("a", "b").blend(1, 2)` and the like.
struct List {
    prompts: Vec<Vec<Node>>,
    choices: Vec<Choice>,
    span: Range<usize>,
}

/// Reads a whole prompt.
pub(super) fn read(characters: Characters) -> (Conjunction, Vec<Note>) {
    let mut top = Top::default();
    let view = characters.view();
    if view.is_blank() {
        let (text, strength, span) = (String::new(), Strength::NEUTRAL, view.span(0..view.len()));
        let empty = Part::Flat(vec![Piece::Text {
            text,
            strength,
            span,
        }]);
        top.conjunction.parts.push((empty, 1.0));
    } else if let Some((list, _)) = top.grammar.list(view, 0, &[".and", ".add"]) {
        top.explicit(list);
    } else if top.implicit(view).is_none() {
        top.literal(characters);
    }
    let mut notes = top.notes;
    notes.append(&mut top.grammar.notes);
    (top.conjunction, notes)
}

#[derive(Default)]
struct Top {
    grammar: Grammar,
    conjunction: Conjunction,
    notes: Vec<Note>,
}

impl Top {
    /// `LoRA`s, then a blend or a prompt, then `LoRA`s. `None` if the reference finds more after that.
    fn implicit(&mut self, view: View<'_>) -> Option<()> {
        let (leading, start) = loras(view, 0);
        let blend = self.grammar.list(view, start, &[".blend"]);
        let (read, end) = if let Some((list, end)) = blend {
            (Ok(list), end)
        } else {
            let (nodes, end) = self.grammar.prompt(view, start);
            (Err(nodes), end)
        };
        let (trailing, end) = loras(view, end);
        self.nothing_after(view, end, read.is_ok())?;
        self.prompt(leading, 1.0);
        match read {
            Ok(list) => self.blend(list),
            Err(nodes) => self.prompt(nodes, 1.0),
        }
        self.prompt(trailing, 1.0);
        Some(())
    }

    /// `None`, with a note, if more than white space follows.
    fn nothing_after(&mut self, view: View<'_>, end: usize, is_blend: bool) -> Option<()> {
        let rest = view.skip_space(end);
        if rest >= view.len() {
            return Some(());
        }
        let what = if is_blend {
            "nothing may follow a blend"
        } else {
            "no such character"
        };
        let message = format!("{what}; compel refuses the prompt, here it is read as text");
        self.notes
            .push(Note::reference_error(view.span(rest..view.len()), message));
        None
    }

    /// What the reference refuses as a whole, read as a plain prompt.
    fn literal(&mut self, characters: Characters) {
        let characters = characters.without_controls();
        let (nodes, _) = self.grammar.prompt(characters.view(), 0);
        self.prompt(nodes, 1.0);
    }

    /// What follows a conjunction is ignored.
    fn explicit(&mut self, list: List) {
        let count = list.prompts.len();
        let weights = self.weights(&list.choices, count, &list.span);
        for (nodes, weight) in list.prompts.into_iter().zip(weights) {
            self.prompt(nodes, weight);
        }
    }

    fn blend(&mut self, list: List) {
        let List {
            prompts,
            mut choices,
            span,
        } = list;
        let normalize = choices.pop_if(|choice| choice.is_no_normalize()).is_none();
        let all = self.weights(&choices, prompts.len(), &span);
        let (mut kept, mut weights) = (Vec::new(), Vec::new());
        for (nodes, weight) in prompts.into_iter().zip(all) {
            if let Some(pieces) = self.part_of_blend(nodes, &span) {
                kept.push(pieces);
                weights.push(weight);
            }
        }
        if !kept.is_empty() {
            let blend = Part::Blend {
                prompts: kept,
                weights,
                normalize,
            };
            self.conjunction.parts.push((blend, 1.0));
        }
    }

    /// A flat prompt of a blend, without the edited sides of its swaps; `None` if nothing is in it.
    fn part_of_blend(&mut self, nodes: Vec<Node>, span: &Range<usize>) -> Option<Vec<Piece>> {
        let flat = self.flatten(nodes);
        if !flat.swaps.is_empty() {
            let message = "a swap cannot be part of a blend; its original is used";
            self.refuse(span, message);
        }
        if flat.pieces.is_empty() {
            self.refuse(span, "an empty prompt cannot be part of a blend; left out");
            return None;
        }
        Some(flat.pieces)
    }

    /// Adds a flat part, unless nothing is left of it.
    fn prompt(&mut self, nodes: Vec<Node>, weight: f64) {
        let mut flat = self.flatten(nodes);
        if flat.pieces.is_empty() {
            return;
        }
        let part = self.conjunction.parts.len();
        for swap in &mut flat.swaps {
            swap.part = part;
        }
        self.conjunction.swaps.append(&mut flat.swaps);
        self.conjunction
            .parts
            .push((Part::Flat(flat.pieces), weight));
    }

    fn flatten(&mut self, nodes: Vec<Node>) -> Flat {
        let mut flat = flatten(nodes);
        self.notes.append(&mut flat.notes);
        self.conjunction.loras.append(&mut flat.loras);
        flat
    }

    /// One weight for each of `count` prompts: all 1 if none is given.
    fn weights(&mut self, choices: &[Choice], count: usize, span: &Range<usize>) -> Vec<f64> {
        if !choices.is_empty() && choices.len() != count {
            self.refuse(
                span,
                "as many weights as prompts are needed; missing ones are 1",
            );
        }
        let weights = choices.iter().map(Choice::weight).collect::<Vec<_>>();
        if weights.contains(&None) {
            self.refuse(span, "a weight is no number; read as 1");
        }
        let given = weights.into_iter().map(|weight| weight.unwrap_or(1.0));
        given.chain(std::iter::repeat(1.0)).take(count).collect()
    }

    fn refuse(&mut self, span: &Range<usize>, message: &str) {
        self.notes
            .push(Note::reference_error(span.clone(), message));
    }
}

impl Grammar {
    /// Prompts in brackets with commas between them, one of `operators`, and its arguments.
    fn list(&mut self, view: View<'_>, start: usize, operators: &[&str]) -> Read<List> {
        let open = view.literal(start, "(")?;
        let (first, mut end) = self.entry(view, open)?;
        let mut prompts = vec![first];
        while let Some(comma) = view.literal(end, ",") {
            let (prompt, behind) = self.entry(view, comma)?;
            prompts.push(prompt);
            end = behind;
        }
        let close = view.literal(end, ")")?;
        let operator = operators
            .iter()
            .find_map(|operator| view.literal(close, operator))?;
        let (choices, end) = options::choices(view, view.literal(operator, "(")?);
        let end = view.literal(end, ")")?;
        let span = view.span(view.skip_space(start)..end);
        Some((
            List {
                prompts,
                choices,
                span,
            },
            end,
        ))
    }

    /// One prompt of a list. Quotes may hold anything here.
    fn entry(&mut self, view: View<'_>, at: usize) -> Read<Vec<Node>> {
        let at = view.skip_space(at);
        self.target(view, at).or_else(|| match view.get(at) {
            Some('"') => self.quoted(view, at, Inside::Prompt),
            _ => None,
        })
    }
}

/// As many `LoRA`s as there are.
fn loras(view: View<'_>, start: usize) -> (Vec<Node>, usize) {
    let (mut nodes, mut end) = (Vec::new(), start);
    while let Some((lora, behind)) = grammar::lora(view, end) {
        nodes.push(Node::Lora(lora));
        end = behind;
    }
    (nodes, end)
}
