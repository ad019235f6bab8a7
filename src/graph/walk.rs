//! From wanted sockets back to everything they need: what exists, in which order, and what does not.

use std::collections::HashMap;

use super::class::{NodeClass, Presence};
use super::workflow::{Body, Input, Node, Place, Socket, Workflow, no_node};
use super::{Inlet, broken, editor};
use crate::error::{Error, ErrorKind, Result};

/// Nodes named in one message.
const MOST_NAMED: usize = 20;

/// Something to evaluate: a node, and of one that passes on its inputs, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Vertex {
    pub(super) node: usize,
    /// 0 for an instance of a class.
    pub(super) slot: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Done,
}

/// A vertex whose sources are being gone through.
struct Frame {
    vertex: Vertex,
    sources: Vec<Vertex>,
}

/// Everything that is needed, sources first; no recursion, however long the chain.
pub(super) struct Walk<'a> {
    workflow: &'a Workflow,
    states: HashMap<Vertex, State>,
    pub(super) order: Vec<Vertex>,
    unknown: Vec<&'a Node>,
    /// The first thing that is wrong.
    wrong: Option<Error>,
}

impl<'a> Walk<'a> {
    /// Goes back from some links. Unknown classes are named all at once, before anything else that
    /// is wrong.
    pub(super) fn back_from(workflow: &'a Workflow, starts: &[Vertex]) -> Result<Walk<'a>> {
        let mut walk = Walk {
            workflow,
            states: HashMap::new(),
            order: Vec::new(),
            unknown: Vec::new(),
            wrong: None,
        };
        for start in starts {
            walk.visit(*start);
        }
        if !walk.unknown.is_empty() {
            return Err(unknown(&walk.unknown));
        }
        match walk.wrong.take() {
            Some(error) => Err(error),
            None => Ok(walk),
        }
    }

    fn visit(&mut self, start: Vertex) {
        if self.states.contains_key(&start) {
            return;
        }
        let mut stack = vec![self.open(start)];
        while let Some(frame) = stack.last_mut() {
            let Some(next) = frame.sources.pop() else {
                self.states.insert(frame.vertex, State::Done);
                self.order.push(frame.vertex);
                stack.pop();
                continue;
            };
            match self.states.get(&next) {
                None => stack.push(self.open(next)),
                Some(State::Done) => (),
                Some(State::Open) => {
                    let error = self.circle(&stack, next);
                    self.wrong.get_or_insert(error);
                }
            }
        }
    }

    fn open(&mut self, vertex: Vertex) -> Frame {
        self.states.insert(vertex, State::Open);
        let node = &self.workflow.nodes[vertex.node];
        let mut sources = match self.sources(node, vertex.slot) {
            Ok(sources) => sources,
            Err(error) => {
                self.wrong.get_or_insert(error);
                Vec::new()
            }
        };
        sources.reverse();
        Frame { vertex, sources }
    }

    fn sources(&mut self, node: &'a Node, slot: usize) -> Result<Vec<Vertex>> {
        let workflow = self.workflow;
        match &node.body {
            Body::Pass(inputs) => match inputs.get(slot) {
                Some(input) => workflow.source(node, "", input).map(Vec::from_iter),
                None => Err(no_output(node, slot)),
            },
            Body::Work { inputs, .. } => {
                if let Some(class) = workflow.classes.get(&node.class) {
                    return workflow.sources_of(node, class);
                }
                self.unknown.push(node);
                let inputs = inputs.iter();
                let linked = inputs
                    .filter_map(|(name, input)| workflow.source(node, name, input).ok().flatten());
                Ok(linked.collect())
            }
        }
    }

    /// The nodes between `again` and itself.
    fn circle(&self, stack: &[Frame], again: Vertex) -> Error {
        let start = stack.iter().position(|frame| frame.vertex == again);
        let circle = &stack[start.unwrap_or_default()..];
        let ids = circle.iter().take(MOST_NAMED);
        let ids: Vec<&str> = ids
            .map(|frame| self.workflow.nodes[frame.vertex.node].id.as_str())
            .collect();
        let more = if circle.len() > MOST_NAMED {
            ", …"
        } else {
            ""
        };
        let node = &self.workflow.nodes[again.node];
        let message = format!(
            "{} needs itself, through {}{more}",
            node.class,
            ids.join(", ")
        );
        broken(message).at_node(&node.id)
    }
}

impl Workflow {
    /// What a class's node reads.
    fn sources_of(&self, node: &Node, class: &dyn NodeClass) -> Result<Vec<Vertex>> {
        let mut sources = Vec::new();
        for inlet in class.inlets() {
            match node.input(class, inlet.name) {
                Some(Input::Missing(why)) => missing(node, inlet, &why)?,
                Some(input) => sources.extend(self.source(node, inlet.name, &input)?),
                None => missing(node, inlet, "")?,
            }
        }
        Ok(sources)
    }

    /// The vertex behind an input; `None` for a value.
    pub(super) fn source(&self, node: &Node, name: &str, input: &Input) -> Result<Option<Vertex>> {
        match input {
            Input::Value(_) => Ok(None),
            Input::Missing(why) => Err(absent(node, name, why)),
            Input::Link { node: id, slot } => {
                let Some(place) = self.places.get(id) else {
                    let why = format!("it is linked to node {id}, which is not there");
                    return Err(absent(node, name, &why));
                };
                let is_pass = matches!(self.nodes[*place].body, Body::Pass(_));
                Ok(Some(Vertex {
                    node: *place,
                    slot: if is_pass { *slot } else { 0 },
                }))
            }
        }
    }

    /// Whether an input is a prompt that was typed in the editor: into the node itself, or into a primitive.
    pub(super) fn is_typed(
        &self,
        node: &Node,
        class: &dyn NodeClass,
        (name, input): (&str, &Input),
    ) -> bool {
        let Body::Work { inputs, .. } = &node.body else {
            return false;
        };
        class.prompts().contains(&name)
            && match input {
                Input::Value(_) => !inputs.contains_key(name),
                Input::Link { node, .. } => {
                    let place = self.places.get(node);
                    place.is_some_and(|place| editor::is_primitive(&self.nodes[*place].class))
                }
                Input::Missing(_) => false,
            }
    }

    /// Of a node's inputs those that may be a conditioning: not what comes from nodes of unknown classes, such as
    /// pictures, nor what is something else; all of them where nothing would be left.
    pub(super) fn likely(&self, node: &Node, sockets: Vec<Socket>) -> Vec<Socket> {
        let is_linked = |socket: &Socket| match (&node.body, &socket.place) {
            (Body::Work { inputs, .. }, Place::Input(name)) => {
                let source = inputs.get(name).map(|input| self.source(node, name, input));
                source.is_some_and(|source| source.is_ok())
            }
            _ => false,
        };
        let is_likely = |socket: &&Socket| match self.plan(std::slice::from_ref(*socket)) {
            Ok(_) => true,
            // What is wrong with a conditioning is told when it is asked for.
            Err(error) => {
                let is_other = error.node() == Some(&node.id) && is_linked(socket);
                !is_other && error.kind() != ErrorKind::UnsupportedNode
            }
        };
        let likely: Vec<Socket> = sockets.iter().filter(is_likely).cloned().collect();
        if likely.is_empty() { sockets } else { likely }
    }

    /// The node of an id.
    pub(super) fn node(&self, id: &str) -> Result<&Node> {
        let place = self.places.get(id).ok_or_else(|| no_node(id))?;
        Ok(&self.nodes[*place])
    }
}

impl Node {
    /// An input by name: what is linked or set, else its widget's value.
    pub(super) fn input(&self, class: &dyn NodeClass, name: &str) -> Option<Input> {
        let Body::Work { inputs, widgets } = &self.body else {
            return None;
        };
        if let Some(input) = inputs.get(name) {
            return Some(input.clone());
        }
        let place = class.widgets().iter().position(|widget| *widget == name)?;
        widgets.get(place).cloned().map(Input::Value)
    }
}

fn missing(node: &Node, inlet: &Inlet, why: &str) -> Result<()> {
    match inlet.presence {
        Presence::Optional => Ok(()),
        Presence::Required => Err(absent(node, inlet.name, why)),
    }
}

/// An input that is needed and has no value.
pub(super) fn absent(node: &Node, name: &str, why: &str) -> Error {
    let input = if name.is_empty() {
        String::new()
    } else {
        format!("input `{name}` of ")
    };
    let reason = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let message = format!("{input}{} has no value{reason}", node.class);
    broken(message).at_node(&node.id)
}

/// An output that a node does not have.
pub(super) fn no_output(node: &Node, slot: usize) -> Error {
    let message = format!("{} has no output {slot} (the first is 0)", node.class);
    broken(message).at_node(&node.id)
}

fn unknown(nodes: &[&Node]) -> Error {
    let named = nodes.iter().take(MOST_NAMED);
    let names: Vec<String> = named
        .map(|node| format!("{} ({})", node.id, node.class))
        .collect();
    let more = match nodes.len().checked_sub(MOST_NAMED) {
        Some(more) if more > 0 => format!(" and {more} more"),
        _ => String::new(),
    };
    let message = format!(
        "what is wanted comes through {} of classes that are not known: {}{more}",
        if nodes.len() == 1 { "a node" } else { "nodes" },
        names.join(", ")
    );
    let error = Error::new(ErrorKind::UnsupportedNode, message).at_node(&nodes[0].id);
    error.hint("ask for what enters such a node, or add a class of your own")
}
