//! The editor's format: `{"nodes": […], "links": […], "definitions": {"subgraphs": […]}, …}`.
//!
//! What is drawn is unfolded into what is run, by the rules of `ComfyUI`'s front end
//! (`graphToPrompt`, `ExecutableNodeDTO`): reroutes, primitives, bypassed and muted nodes, and the
//! borders of subgraphs become nodes that hand something through. Notes and groups are not nodes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value as Json;

use super::scope::{self, Item, Scope, text_of};
use super::value::Value;
use super::workflow::{Body, Input, MOST_NODES, Node, too_many};
use crate::error::Result;

/// `mode` of a node that is muted.
const MUTED: u64 = 2;
/// `mode` of a node that is bypassed.
const BYPASSED: u64 = 4;
/// Nodes that hold one value for others.
const PRIMITIVES: [&str; 1] = ["PrimitiveNode"];
/// Nodes that hand their input on: the editor's own, and rgthree's.
const REROUTES: [&str; 2] = ["Reroute", "Reroute (rgthree)"];
/// Nodes that are only drawn.
const NOTES: [&str; 2] = ["Note", "MarkdownNote"];
/// The output of a subgraph's border is named by the subgraph's instance; this is its input's.
const ENTRANCE: &str = "in";

/// All nodes, subgraphs unfolded; a node in one is called `instance:node`.
pub(super) fn nodes(root: &Json) -> Result<Vec<Node>> {
    let definitions = scope::definitions(root)?;
    let mut unfolding = Unfolding {
        definitions,
        nodes: Vec::new(),
        waiting: VecDeque::from([Scope::whole(root)?]),
    };
    while let Some(scope) = unfolding.waiting.pop_front() {
        unfolding.scope(&scope)?;
    }
    Ok(unfolding.nodes)
}

/// Whether a class of nodes holds one value for others.
pub(super) fn is_primitive(class: &str) -> bool {
    PRIMITIVES.contains(&class)
}

struct Unfolding<'a> {
    definitions: HashMap<&'a str, &'a Json>,
    nodes: Vec<Node>,
    /// Subgraphs that are still folded.
    waiting: VecDeque<Scope<'a>>,
}

impl<'a> Unfolding<'a> {
    fn scope(&mut self, scope: &Scope<'a>) -> Result<()> {
        let set = scope.named_nodes();
        for item in &scope.items {
            if self.nodes.len() >= MOST_NODES {
                return Err(too_many());
            }
            if NOTES.contains(&item.class) {
                continue;
            }
            let body = self.body(scope, item, &set)?;
            self.nodes.push(Node {
                id: scope.id(&item.id),
                class: item.class.to_owned(),
                body,
            });
        }
        Ok(())
    }

    /// What a node does or hands on. `set` has the `SetNode`s of the scope.
    fn body(
        &mut self,
        scope: &Scope<'a>,
        item: &Item<'a>,
        set: &HashMap<String, String>,
    ) -> Result<Body> {
        Ok(match item.mode {
            MUTED => muted(item),
            BYPASSED => bypassed(scope, item),
            _ if REROUTES.contains(&item.class) => Body::Pass(vec![scope.first_input(item)]),
            _ if is_primitive(item.class) => Body::Pass(vec![primitive(item)]),
            _ if item.class == "GetNode" => Body::Pass(vec![fetched(set, item)]),
            _ if item.class == "SetNode" => Body::Pass(vec![scope.first_input(item)]),
            _ => match self.definitions.get(item.class) {
                Some(definition) => self.instance(scope, item, definition)?,
                None => work(scope, item),
            },
        })
    }

    /// Unfolds a subgraph: its border's inputs become a node, and its outputs the instance.
    fn instance(&mut self, scope: &Scope<'a>, item: &Item<'a>, inner: &'a Json) -> Result<Body> {
        let id = scope.id(&item.id);
        let mut inside = scope.inside(item, inner)?;
        let names = scope::border(inner, "inputs").into_iter().enumerate();
        let entrance: Vec<Input> = names
            .map(|(slot, name)| given(scope, item, slot, name))
            .collect();
        let unfed = entrance.iter().enumerate();
        inside.unfed = unfed
            .filter(|(_, input)| matches!(input, Input::Missing(_)))
            .map(|(slot, _)| slot)
            .collect();
        self.nodes.push(Node {
            id: format!("{id}:{ENTRANCE}"),
            class: format!("inputs of {}", item.class),
            body: Body::Pass(entrance),
        });
        let n_outputs = scope::border(inner, "outputs").len();
        let outputs = (0..n_outputs).map(|slot| inside.output(slot)).collect();
        self.waiting.push_back(inside);
        Ok(Body::Pass(outputs))
    }
}

/// What an instance hands into its subgraph: what is linked to it, else the value of its widget, else
/// what the node inside has.
fn given(scope: &Scope<'_>, item: &Item<'_>, slot: usize, name: &str) -> Input {
    let by_name = item.inputs.iter().find(|input| input.name == name);
    let input = by_name.or_else(|| item.inputs.get(slot));
    match input {
        Some(input) if input.link.is_some() => scope.linked(item, input),
        _ => match item.promoted(name) {
            Some(value) => Input::Value(value),
            None => Input::Missing(format!(
                "nothing is linked to input `{name}` of the subgraph node {}",
                item.id
            )),
        },
    }
}

fn muted(item: &Item<'_>) -> Body {
    let why = format!("it is linked to node {}, which is muted", item.id);
    let n_outputs = item.outputs.len().max(1);
    Body::Pass(vec![Input::Missing(why); n_outputs])
}

/// Each output is the input of the same number if that has its type, else the first that has.
fn bypassed(scope: &Scope<'_>, item: &Item<'_>) -> Body {
    let pass = |(slot, kind): (usize, &&str)| {
        let same = item.inputs.get(slot).filter(|input| input.kind == *kind);
        let first = || item.inputs.iter().find(|input| input.kind == *kind);
        match same.or_else(first) {
            Some(input) => scope.linked(item, input),
            None => Input::Missing(format!(
                "it is linked to node {}, which is bypassed and has no input of type {kind}",
                item.id
            )),
        }
    };
    Body::Pass(item.outputs.iter().enumerate().map(pass).collect())
}

fn primitive(item: &Item<'_>) -> Input {
    match item.widgets.first() {
        Some(value) => Input::Value(value.clone()),
        None => Input::Missing(format!("the primitive node {} has no value", item.id)),
    }
}

/// KJNodes' `GetNode` gives what the `SetNode` of the same name is given.
fn fetched(set: &HashMap<String, String>, item: &Item<'_>) -> Input {
    let name = item.widgets.first().and_then(text_of).unwrap_or_default();
    match set.get(name) {
        Some(id) => Input::Link {
            node: id.clone(),
            slot: 0,
        },
        None => Input::Missing(format!("there is no SetNode {name:?} for node {}", item.id)),
    }
}

/// An instance of a class. Inputs that are not linked keep their widget's value.
fn work(scope: &Scope<'_>, item: &Item<'_>) -> Body {
    let mut inputs: BTreeMap<String, Input> = item
        .inputs
        .iter()
        .filter(|input| input.link.is_some() && !scope.is_unfed(input))
        .map(|input| (input.name.to_owned(), scope.linked(item, input)))
        .collect();
    for (name, value) in &item.named_widgets {
        inputs
            .entry(name.clone())
            .or_insert_with(|| Input::Value(value.clone()));
    }
    Body::Work {
        inputs,
        widgets: item.widgets.clone(),
    }
}

impl Scope<'_> {
    /// The id of a node of this scope.
    fn id(&self, own: &str) -> String {
        match &self.prefix {
            Some(prefix) => format!("{prefix}:{own}"),
            None => own.to_owned(),
        }
    }

    /// What a linked input is given.
    fn linked(&self, item: &Item<'_>, input: &scope::Slot<'_>) -> Input {
        let Some(link) = input.link else {
            return Input::Missing(format!("nothing is linked to node {}", item.id));
        };
        let Some((origin, slot)) = self.links.get(&link) else {
            return Input::Missing(format!("its link {link} is not in the file"));
        };
        if *origin == scope::ENTRANCE_ID {
            let prefix = self.prefix.as_deref().unwrap_or_default();
            return Input::Link {
                node: format!("{prefix}:{ENTRANCE}"),
                slot: *slot,
            };
        }
        Input::Link {
            node: self.id(origin),
            slot: *slot,
        }
    }

    /// Whether an input with a widget is linked to the border and nothing comes from there: then the
    /// widget's value counts.
    fn is_unfed(&self, input: &scope::Slot<'_>) -> bool {
        let origin = input.link.and_then(|link| self.links.get(&link));
        let fed = |(origin, slot): &(String, usize)| {
            *origin != scope::ENTRANCE_ID || !self.unfed.contains(slot)
        };
        input.has_widget && !origin.is_none_or(fed)
    }

    fn first_input(&self, item: &Item<'_>) -> Input {
        match item.inputs.first() {
            Some(input) => self.linked(item, input),
            None => Input::Missing(format!("nothing is linked to node {}", item.id)),
        }
    }

    /// What leaves a subgraph by an output.
    fn output(&self, slot: usize) -> Input {
        match self.exits.get(&slot) {
            Some((origin, slot)) if *origin == scope::ENTRANCE_ID => Input::Link {
                node: format!("{}:{ENTRANCE}", self.prefix.as_deref().unwrap_or_default()),
                slot: *slot,
            },
            Some((origin, slot)) => Input::Link {
                node: self.id(origin),
                slot: *slot,
            },
            None => Input::Missing("nothing is linked to that output in the subgraph".to_owned()),
        }
    }

    /// KJNodes' `SetNode`s by name.
    fn named_nodes(&self) -> HashMap<String, String> {
        let set = self.items.iter().filter(|item| item.class == "SetNode");
        let named = set.filter_map(|item| {
            let name = item.widgets.first().and_then(text_of)?;
            Some((name.to_owned(), self.id(&item.id)))
        });
        named.collect()
    }
}

impl Item<'_> {
    /// The value that an instance of a subgraph has for one of its inputs.
    fn promoted(&self, name: &str) -> Option<Value> {
        let listed = self.proxies.iter().position(|(_, proxy)| proxy == name);
        let all_listed = !self.proxies.is_empty() && self.proxies.len() == self.widgets.len();
        let own = || {
            let mut with_widgets = self.inputs.iter().filter(|input| input.has_widget);
            with_widgets.position(|input| input.name == name)
        };
        let place = if all_listed { listed } else { own() };
        self.widgets.get(place?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subgraph_in_itself_is_refused() {
        let json = r#"{"nodes": [{"id": 1, "type": "s"}], "links": [],
            "definitions": {"subgraphs": [{"id": "s", "nodes": [{"id": 2, "type": "s"}]}]}}"#;
        let root: Json = serde_json::from_str(json).unwrap();
        let error = nodes(&root).unwrap_err();
        assert_eq!(error.node(), Some("1:2"));
        assert!(error.message().contains("itself"), "{error}");
    }

    #[test]
    fn many_subgraphs_in_each_other_are_refused() {
        let level = |level: u32| {
            let inner = (0..20).map(|id| format!(r#"{{"id": {id}, "type": "s{}"}}"#, level + 1));
            let inner = inner.collect::<Vec<_>>().join(",");
            format!(r#"{{"id": "s{level}", "nodes": [{inner}]}}"#)
        };
        let levels = (0..12).map(level).collect::<Vec<_>>().join(",");
        let json = format!(
            r#"{{"nodes": [{{"id": 1, "type": "s0"}}], "links": [],
                "definitions": {{"subgraphs": [{levels}]}}}}"#
        );
        let error = nodes(&serde_json::from_str(&json).unwrap()).unwrap_err();
        assert!(error.message().contains("nodes"), "{error}");
    }
}
