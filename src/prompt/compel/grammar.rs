//! compel's grammar up to one prompt: words, brackets, quotes, strengths, swaps, `LoRA`s.
//!
//! Rules: `build_parser_syntax` in `compel/prompt_parser.py`, a pyparsing grammar: alternatives are
//! tried in order and never tried again, white space is skipped before a token unless stated.

use std::ops::Range;

use super::Lora;
use super::characters::{Characters, View, ends_word, is_skipped};
use super::options::{self, Choice};
use crate::prompt::{Note, python};

/// Brackets and quotes inside each other that are followed. The reference takes four times as long
/// for every level and gives up far below this.
const DEEPEST: usize = 32;

/// Part of a prompt as it was written.
pub(super) enum Node {
    /// A fragment; escapes are undone later.
    Text { text: String, span: Range<usize> },
    /// `(..)1.1` and the like.
    Scaled { strength: f64, children: Vec<Node> },
    /// `original.swap(edited, options)`.
    Swap(Exchange<Node>),
    /// `withLora(name, weight)`.
    Lora(Lora),
}

/// The two sides of a swap, and what was written with them.
pub(super) struct Exchange<T> {
    pub(super) original: Vec<T>,
    pub(super) edited: Vec<T>,
    pub(super) choices: Vec<Choice>,
    pub(super) span: Range<usize>,
}

/// What was read, and the index behind it.
pub(super) type Read<T> = Option<(T, usize)>;

/// What an operator applies to.
struct Target {
    nodes: Vec<Node>,
    is_word: bool,
}

/// What may stand inside brackets or quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    /// Fragments, commas and dots.
    Sequence,
    /// Fragments only.
    WithoutCommas,
    /// Anything that a whole prompt may have.
    Prompt,
}

/// The grammar, and what it has noticed.
#[derive(Default)]
pub(super) struct Grammar {
    pub(super) notes: Vec<Note>,
    depth: usize,
}

impl Grammar {
    /// A whole prompt. Words that fit nothing are taken literally up to the next white space. A form feed is
    /// white space where more of it follows; elsewhere nothing fits it.
    pub(super) fn prompt(&mut self, view: View<'_>, start: usize) -> (Vec<Node>, usize) {
        let (mut nodes, mut index) = (Vec::new(), start);
        loop {
            let at = view.skip_space(index);
            if let Some((mut read, end)) = self.operation(view, at, Inside::Prompt) {
                nodes.append(&mut read);
                index = end;
                continue;
            }
            let end = view.run(at, |character| !ends_word(character));
            if end > at {
                nodes.push(text(view, at..end));
                index = end;
            } else if let Some(end) = view.form_feed(at) {
                index = end;
            } else {
                return (nodes, at);
            }
        }
    }

    /// As many parts as there are.
    fn sequence(&mut self, view: View<'_>, start: usize, inside: Inside) -> (Vec<Node>, usize) {
        let (mut nodes, mut index) = (Vec::new(), start);
        loop {
            let at = view.skip_space(index);
            let read = self.operation(view, at, inside).or_else(|| {
                let is_mark = inside == Inside::Sequence && matches!(view.get(at), Some(',' | '.'));
                is_mark.then(|| (vec![text(view, at..at + 1)], at + 1))
            });
            let Some((mut read, end)) = read else {
                return (nodes, index);
            };
            nodes.append(&mut read);
            index = end;
        }
    }

    /// A LoRA, or a target with or without something applied to it.
    fn operation(&mut self, view: View<'_>, at: usize, inside: Inside) -> Read<Vec<Node>> {
        if let Some((lora, end)) = lora(view, at) {
            return Some((vec![Node::Lora(lora)], end));
        }
        let (target, end) = self.any_target(view, at)?;
        if let Some((strength, end)) = self.strength(view, end, target.is_word) {
            let children = target.nodes;
            let scaled = Node::Scaled { strength, children };
            return Some((vec![scaled], end));
        }
        if let Some(((edited, choices), behind)) = self.swap(view, end) {
            let exchange = Exchange {
                original: target.nodes,
                edited,
                choices,
                span: view.span(at..behind),
            };
            return Some((vec![Node::Swap(exchange)], behind));
        }
        // In a whole prompt a plain word is left to the literal reading, which may go on further.
        let is_literal = inside == Inside::Prompt && target.is_word;
        (!is_literal).then_some((target.nodes, end))
    }

    /// What can be operated on: quoted, in brackets, or a word.
    pub(super) fn target(&mut self, view: View<'_>, at: usize) -> Read<Vec<Node>> {
        self.any_target(view, at)
            .map(|(target, end)| (target.nodes, end))
    }

    fn any_target(&mut self, view: View<'_>, at: usize) -> Read<Target> {
        let (nodes, end, is_word) = match view.get(at)? {
            '"' => self
                .quoted(view, at, Inside::Sequence)
                .map(|(nodes, end)| (nodes, end, false)),
            '(' => self
                .parenthesized(view, at)
                .map(|(nodes, end)| (nodes, end, false)),
            _ => word(view, at).map(|end| (vec![text(view, at..end)], end, true)),
        }?;
        Some((Target { nodes, is_word }, end))
    }

    fn parenthesized(&mut self, view: View<'_>, at: usize) -> Read<Vec<Node>> {
        self.descend(view, at)?;
        let (nodes, end) = self.sequence(view, at + 1, Inside::Sequence);
        self.depth -= 1;
        Some((nodes, view.literal(end, ")")?))
    }

    /// `"..."`, whose inside must be readable to its end.
    pub(super) fn quoted(&mut self, view: View<'_>, at: usize, inside: Inside) -> Read<Vec<Node>> {
        let close = closing_quote(view, at)?;
        let content = Characters::unquoted(view.part(at + 1..close));
        let content = content.view();
        if content.is_blank() {
            let empty = Node::Text {
                text: String::new(),
                span: view.span(at..close + 1),
            };
            return Some((vec![empty], close + 1));
        }
        self.descend(view, at)?;
        let (nodes, end) = match inside {
            Inside::Prompt => self.prompt(content, 0),
            Inside::Sequence | Inside::WithoutCommas => self.sequence(content, 0, inside),
        };
        self.depth -= 1;
        (content.skip_space(end) == content.len()).then_some((nodes, close + 1))
    }

    /// Goes one level down, unless that is too deep.
    fn descend(&mut self, view: View<'_>, at: usize) -> Option<()> {
        if self.depth == DEEPEST {
            let message = "nested deeper than compel can read; taken literally";
            self.notes
                .push(Note::reference_error(view.span(at..at + 1), message));
            return None;
        }
        self.depth += 1;
        Some(())
    }

    /// `.attend(1.5)`, or `++`, `--`, or `1.5` right behind the target; no number behind a word.
    fn strength(&mut self, view: View<'_>, at: usize, is_word: bool) -> Read<f64> {
        self.explicit_strength(view, at)
            .or_else(|| self.signs_or_number(view, at, !is_word))
    }

    fn explicit_strength(&mut self, view: View<'_>, at: usize) -> Read<f64> {
        let open = view.literal(view.literal(at, ".attend")?, "(")?;
        let (strength, end) = self.signs_or_number(view, view.skip_space(open), true)?;
        Some((strength, view.literal(end, ")")?))
    }

    fn signs_or_number(&mut self, view: View<'_>, at: usize, may_be_number: bool) -> Read<f64> {
        let (base, end) = match view.get(at)? {
            '+' => (1.1_f64, view.run(at, |character| character == '+')),
            '-' => (0.9_f64, view.run(at, |character| character == '-')),
            _ if may_be_number => return options::number(view, at),
            _ => return None,
        };
        let strength = base.powf((end - at) as f64);
        if strength.is_infinite() {
            let message = "more pluses than a number can take; compel fails";
            self.notes
                .push(Note::reference_error(view.span(at..end), message));
        }
        Some((strength, end))
    }

    /// `.swap(edited, options)`.
    fn swap(&mut self, view: View<'_>, at: usize) -> Read<(Vec<Node>, Vec<Choice>)> {
        let open = view.literal(view.literal(at, ".swap")?, "(")?;
        let (edited, end) = self.sequence(view, open, Inside::WithoutCommas);
        let (choices, end) = match view.literal(end, ",") {
            Some(comma) => options::choices(view, comma),
            None => (Vec::new(), end),
        };
        Some(((edited, choices), view.literal(end, ")")?))
    }
}

fn text(view: View<'_>, range: Range<usize>) -> Node {
    Node::Text {
        text: view.text(range.clone()),
        span: view.span(range),
    }
}

/// Characters that mean something and can be escaped.
fn is_syntax(character: char) -> bool {
    matches!(character, '(' | ')' | '"' | ',' | '.' | '+' | '-' | '=')
}

/// The end of the word at `at`. A single sign belongs to it if more of the word follows.
fn word(view: View<'_>, at: usize) -> Option<usize> {
    let mut index = at;
    while let Some(character) = view.get(index) {
        let next = view.get(index + 1);
        index += match character {
            '\\' if next.is_some_and(is_syntax) => 2,
            '+' | '-' if next.is_none_or(|next| is_skipped(next) || is_syntax(next)) => break,
            '+' | '-' => 1,
            _ if is_syntax(character) || ends_word(character) => break,
            _ => 1,
        };
    }
    (index > at).then_some(index)
}

/// The quote that ends a string: the first on the line without a backslash before it, else the last
/// with one.
fn closing_quote(view: View<'_>, open: usize) -> Option<usize> {
    let mut last = None;
    let mut index = open + 1;
    loop {
        match view.get(index)? {
            '\n' | '\r' => return last,
            '"' if view.get(index - 1) != Some('\\') => return Some(index),
            '"' => last = Some(index),
            _ => {}
        }
        index += 1;
        if index == view.len() {
            return last;
        }
    }
}

/// `withLora(name, weight)` or `useLora(..)`; without a weight it is 1.
pub(super) fn lora(view: View<'_>, at: usize) -> Read<Lora> {
    let trigger = view
        .literal(at, "useLora")
        .or_else(|| view.literal(at, "withLora"))?;
    let open = view.literal(trigger, "(")?;
    let (name, end) = options::keyword(view, view.skip_space(open))?;
    let weight = view.literal(end, ",").and_then(|comma| {
        let (weight, end) = options::number(view, view.skip_space(comma))?;
        Some((weight, end))
    });
    let (weight, end) = weight.unwrap_or((1.0, end));
    let end = view.literal(end, ")")?;
    let span = view.span(view.skip_space(at)..end);
    Some((Lora { name, weight, span }, end))
}

/// `float()` of a stretch.
pub(super) fn float(view: View<'_>, range: Range<usize>) -> Option<f64> {
    python::float(&view.text(range))
}
