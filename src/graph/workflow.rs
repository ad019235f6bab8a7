//! A workflow as nodes and links, whatever file it came from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::class::Classes;
use super::value::Value;
use super::{api, broken, editor, png};
use crate::error::{Error, ErrorKind, Result};

/// The most nodes, subgraphs unfolded.
pub(super) const MOST_NODES: usize = 300_000;

/// A `ComfyUI` workflow: its nodes and their links, and the classes that they may be of.
#[derive(Clone, Debug)]
pub struct Workflow {
    pub(super) nodes: Vec<Node>,
    pub(super) places: HashMap<String, usize>,
    pub(super) classes: Classes,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) class: String,
    pub(super) body: Body,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// An instance of a class.
    Work {
        inputs: BTreeMap<String, Input>,
        /// `widgets_values` of the editor's format, which only the class can name.
        widgets: Vec<Value>,
    },
    /// Each output is an input: reroutes, bypassed and muted nodes, primitives, subgraphs' borders.
    Pass(Vec<Input>),
}

/// Where an input's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Input {
    /// From the file.
    Value(Value),
    /// From another node.
    Link { node: String, slot: usize },
    /// From nowhere, and why.
    Missing(String),
}

/// An input or an output of a node at which a conditioning is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket {
    /// The node. A node in a subgraph is called `instance:node`.
    pub node: String,
    /// Which of its inputs or outputs.
    pub place: Place,
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// What enters by the input of this name.
    Input(String),
    /// What leaves by the output of this number, from 0.
    Output(usize),
}

impl Socket {
    /// What enters a node by an input.
    pub fn input(node: impl Into<String>, name: impl Into<String>) -> Socket {
        Socket {
            node: node.into(),
            place: Place::Input(name.into()),
        }
    }

    /// What leaves a node by an output.
    pub fn output(node: impl Into<String>, slot: usize) -> Socket {
        Socket {
            node: node.into(),
            place: Place::Output(slot),
        }
    }
}

impl fmt::Display for Socket {
    /// `3.positive`, or `3.0` for an output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Input(name) => write!(f, "{}.{name}", self.node),
            Place::Output(slot) => write!(f, "{}.{slot}", self.node),
        }
    }
}

impl Workflow {
    /// Reads either JSON format: what the editor saves, or what it sends to be run (API). An error
    /// says what is wrong with the file as such; what is wrong with a node shows when it is needed. A
    /// byte order mark in front is passed over.
    pub fn from_json(json: &str) -> Result<Workflow> {
        let root = parsed(json.trim_start_matches('\u{feff}'))?;
        let nodes = if root.get("nodes").is_some() {
            editor::nodes(&root)?
        } else {
            api::nodes(&root)?
        };
        Workflow::of(nodes)
    }

    /// Reads a JSON file or a picture with a workflow in it: a PNG's `prompt`, else its `workflow`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Workflow> {
        if let Some(json) = png::workflow(bytes)? {
            return Workflow::from_json(&json);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let message = "neither JSON text nor a PNG";
            broken(message).because(error)
        })?;
        Workflow::from_json(text)
    }

    /// The same with other classes.
    #[must_use]
    pub fn with_classes(self, classes: Classes) -> Workflow {
        Workflow { classes, ..self }
    }

    /// How many nodes there are, subgraphs unfolded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The conditioning inputs of all samplers and guiders, in the order of the file.
    pub fn conditionings(&self) -> Vec<Socket> {
        let nodes = self.nodes.iter();
        nodes.flat_map(|node| self.sinks_of(node)).collect()
    }

    /// The sockets of one node at which a conditioning can be wanted: its conditioning inputs if it
    /// is a sampler or guider, else its outputs that are said to be one or, of a class that is not
    /// known, the inputs that are linked and may be one. An error if there is no such node or socket.
    pub fn sockets_of(&self, node: &str) -> Result<Vec<Socket>> {
        let place = self.places.get(node).ok_or_else(|| no_node(node))?;
        let node = &self.nodes[*place];
        let mut sockets = self.sinks_of(node);
        if sockets.is_empty() {
            sockets = match self.classes.get(&node.class) {
                Some(_) => vec![Socket::output(&node.id, 0)],
                None => self.likely(node, linked(node)),
            };
        }
        if sockets.is_empty() {
            let message = format!("{} has no input that is linked", node.class);
            return Err(broken(message).at_node(&node.id));
        }
        Ok(sockets)
    }

    fn sinks_of(&self, node: &Node) -> Vec<Socket> {
        let class = self.classes.get(&node.class);
        let class = class.filter(|_| matches!(node.body, Body::Work { .. }));
        let names = class.map_or(&[][..], |class| class.sinks());
        let sockets = names.iter().map(|name| Socket::input(&node.id, *name));
        sockets.collect()
    }

    fn of(nodes: Vec<Node>) -> Result<Workflow> {
        if nodes.len() > MOST_NODES {
            return Err(too_many());
        }
        let mut places = HashMap::with_capacity(nodes.len());
        for (place, node) in nodes.iter().enumerate() {
            if places.insert(node.id.clone(), place).is_some() {
                let message = "another node has this id too";
                return Err(broken(message).at_node(&node.id));
            }
        }
        Ok(Workflow {
            nodes,
            places,
            classes: Classes::comfy_ui(),
        })
    }
}

/// JSON as Python writes it: with `NaN` and `Infinity`, which `ComfyUI` saves with some nodes.
fn parsed(json: &str) -> Result<serde_json::Value> {
    let strict = serde_json::from_str(json);
    let parsed = strict.or_else(|error| {
        if json.contains("NaN") || json.contains("Infinity") {
            serde_json::from_str(&without_words(json))
        } else {
            Err(error)
        }
    });
    parsed.map_err(|error| {
        let message = format!("not JSON, or nested too deep: {error}");
        broken(message).because(error)
    })
}

/// Python's words for what is no number, outside of texts, replaced by `null`.
fn without_words(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    // Every second part is a text, where quotes that are escaped do not count.
    let mut in_text = false;
    for part in json.split_inclusive('"') {
        if in_text {
            plain.push_str(part);
        } else {
            let part = part
                .replace("-Infinity", "null")
                .replace("Infinity", "null");
            plain.push_str(&part.replace("NaN", "null"));
        }
        let body = part.strip_suffix('"').unwrap_or(part);
        let escapes = body.bytes().rev().take_while(|byte| *byte == b'\\').count();
        let is_escaped = in_text && escapes % 2 == 1;
        if !is_escaped {
            in_text = !in_text;
        }
    }
    plain
}

pub(super) fn too_many() -> Error {
    broken(format!("more than {MOST_NODES} nodes, subgraphs unfolded"))
}

pub(super) fn no_node(id: &str) -> Error {
    Error::new(ErrorKind::Workflow, "there is no such node").at_node(id)
}

fn linked(node: &Node) -> Vec<Socket> {
    let Body::Work { inputs, .. } = &node.body else {
        return Vec::new();
    };
    let inputs = inputs.iter();
    inputs
        .filter(|(_, input)| matches!(input, Input::Link { .. }))
        .map(|(name, _)| Socket::input(&node.id, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_numbers() {
        let json =
            r#"{"a": NaN, "NaN": "-Infinity \" NaN", "c": [-Infinity, Infinity], "d\\": NaN}"#;
        let want = r#"{"a": null, "NaN": "-Infinity \" NaN", "c": [null, null], "d\\": null}"#;
        assert_eq!(without_words(json), want);
        assert!(parsed(json).is_ok() && parsed("{NaN").is_err());
    }
}
