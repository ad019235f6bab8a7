//! From nested nodes to pieces: strengths multiply on the way down, neighbors are fused.
//!
//! Rules: `PromptParser.flatten` in `compel/prompt_parser.py`.

use std::ops::Range;

use super::grammar::{Exchange, Node};
use super::{Lora, Swap, swap_options};
use crate::prompt::{Note, Piece, Strength};

/// One flattened prompt.
#[derive(Default)]
pub(super) struct Flat {
    pub(super) pieces: Vec<Piece>,
    pub(super) swaps: Vec<Swap>,
    pub(super) loras: Vec<Lora>,
    pub(super) notes: Vec<Note>,
}

/// A fragment, or a swap of fragments.
enum Item {
    Text {
        text: String,
        strength: f64,
        span: Range<usize>,
    },
    Swap(Exchange<Item>),
}

/// Flattens the nodes of one prompt.
pub(super) fn flatten(nodes: Vec<Node>) -> Flat {
    let mut flat = Flat::default();
    let mut items = Vec::new();
    flat.collect(nodes, 1.0, &mut items);
    flat.fuse(items);
    flat
}

impl Flat {
    fn collect(&mut self, nodes: Vec<Node>, scale: f64, items: &mut Vec<Item>) {
        for node in nodes {
            match node {
                Node::Text { text, span } => items.push(Item::Text {
                    text,
                    strength: scale,
                    span,
                }),
                Node::Scaled { strength, children } => {
                    self.collect(children, scale * strength, items);
                }
                Node::Lora(lora) => self.loras.push(lora),
                Node::Swap(swap) => items.push(Item::Swap(self.sides(swap, scale))),
            }
        }
    }

    fn sides(&mut self, swap: Exchange<Node>, scale: f64) -> Exchange<Item> {
        let Range { start, end } = swap.span;
        Exchange {
            original: self.side(swap.original, scale, start),
            edited: self.side(swap.edited, scale, end),
            choices: swap.choices,
            span: start..end,
        }
    }

    /// One side of a swap; an empty one is an empty text.
    fn side(&mut self, nodes: Vec<Node>, scale: f64, at: usize) -> Vec<Item> {
        let strength = if nodes.is_empty() { scale } else { 1.0 };
        let mut items = Vec::new();
        self.collect(nodes, scale, &mut items);
        if items.is_empty() {
            items.push(Item::Text {
                text: String::new(),
                strength,
                span: at..at,
            });
        }
        items
    }

    fn fuse(&mut self, items: Vec<Item>) {
        let mut run = Run::default();
        for item in items {
            match item {
                Item::Text {
                    text,
                    strength,
                    span,
                } => run.push(text, strength, span, self),
                Item::Swap(swap) => {
                    run.end(self);
                    self.swap(swap);
                }
            }
        }
        run.end(self);
    }

    fn swap(&mut self, swap: Exchange<Item>) {
        let start = self.pieces.len();
        let outer = self.swaps.len();
        self.fuse(swap.original);
        let mut other = Flat::default();
        other.fuse(swap.edited);
        self.notes.append(&mut other.notes);
        if self.swaps.len() > outer || !other.swaps.is_empty() {
            self.swaps.truncate(outer);
            let message = "a swap inside a swap, at which compel fails; the inner one is not kept";
            self.notes
                .push(Note::reference_error(swap.span.clone(), message));
        }
        let options = swap_options::read(&swap.choices, &swap.span, &mut self.notes);
        let pieces = start..self.pieces.len();
        self.swaps.push(Swap {
            part: 0,
            pieces,
            edited: other.pieces,
            options,
        });
    }

    fn push(&mut self, text: String, strength: f64, span: Range<usize>) {
        let strength = Strength::new(strength);
        self.notes.extend(Note::about_strength(strength, &span));
        self.pieces.push(Piece::Text {
            text,
            strength,
            span,
        });
    }
}

/// Fragments of equal strength that follow each other.
#[derive(Default)]
struct Run {
    texts: Vec<String>,
    strength: f64,
    span: Range<usize>,
}

impl Run {
    #[expect(clippy::float_cmp, reason = "compel fuses exactly equal weights")]
    fn push(&mut self, text: String, strength: f64, span: Range<usize>, flat: &mut Flat) {
        if !self.texts.is_empty() && self.strength != strength {
            self.end(flat);
        }
        if self.texts.is_empty() {
            (self.strength, self.span) = (strength, span);
        } else {
            self.span.end = span.end;
        }
        self.texts.push(text);
    }

    /// Joins the texts with spaces.
    ///
    /// The reference undoes escapes whenever it makes a fragment: when reading, when flattening,
    /// and at every fusion again for all that is fused so far.
    fn end(&mut self, flat: &mut Flat) {
        let texts = std::mem::take(&mut self.texts);
        let count = texts.len();
        let mut fused = String::new();
        for (index, text) in texts.iter().enumerate() {
            let fusions = count - index.max(1);
            if index > 0 {
                fused.push(' ');
            }
            unescape(text, 2 + fusions, &mut fused);
        }
        if count > 0 {
            flat.push(fused, self.strength, std::mem::take(&mut self.span));
        }
    }
}

/// Takes up to `times` backslashes away before each `(`, `)` and `"`.
fn unescape(text: &str, times: usize, into: &mut String) {
    let mut backslashes = 0;
    for character in text.chars() {
        if character == '\\' {
            backslashes += 1;
            continue;
        }
        let gone = if matches!(character, '(' | ')' | '"') {
            times
        } else {
            0
        };
        let kept = usize::saturating_sub(backslashes, gone);
        into.extend(std::iter::repeat_n('\\', kept));
        into.push(character);
        backslashes = 0;
    }
    into.extend(std::iter::repeat_n('\\', backslashes));
}
