//! The API format: `{"6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], …}}, …}`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::broken;
use super::value::Value;
use super::workflow::{Body, Input, MOST_NODES, Node, too_many};
use crate::error::Result;

/// All nodes, in the order of their ids: numbers by value, then the rest.
pub(super) fn nodes(root: &Json) -> Result<Vec<Node>> {
    let objects = prompt(root)?;
    if objects.len() > MOST_NODES {
        return Err(too_many());
    }
    let mut nodes = objects
        .iter()
        .map(|(id, node)| self::node(id, node))
        .collect::<Result<Vec<Node>>>()?;
    nodes.sort_by_cached_key(|node| (node.id.parse::<u64>().unwrap_or(u64::MAX), node.id.clone()));
    Ok(nodes)
}

/// The nodes by id: the whole file, or what is sent to `/prompt`, which wraps them.
fn prompt(root: &Json) -> Result<&Map<String, Json>> {
    let object = root.as_object().ok_or_else(no_workflow)?;
    let wrapped = object.get("prompt").and_then(Json::as_object);
    let nodes = match wrapped {
        Some(nodes) if !object["prompt"].as_object().is_some_and(is_node) => nodes,
        _ => object,
    };
    if nodes.is_empty()
        || !nodes
            .values()
            .any(|node| node.as_object().is_some_and(is_node))
    {
        return Err(no_workflow());
    }
    Ok(nodes)
}

fn is_node(object: &Map<String, Json>) -> bool {
    object.contains_key("class_type")
}

fn no_workflow() -> crate::error::Error {
    broken("JSON, but no workflow: neither `nodes` nor any object with a `class_type`")
}

fn node(id: &str, json: &Json) -> Result<Node> {
    let class = json.get("class_type").and_then(Json::as_str);
    let class = class.ok_or_else(|| broken("no `class_type`").at_node(id))?;
    let inputs = match json.get("inputs") {
        None => BTreeMap::new(),
        Some(Json::Object(inputs)) => inputs
            .iter()
            .map(|(name, value)| (name.clone(), input(value)))
            .collect(),
        Some(_) => return Err(broken("`inputs` is not an object").at_node(id)),
    };
    let body = match class {
        "Reroute" => Body::Pass(rerouted(inputs)),
        _ => Body::Work {
            inputs,
            widgets: Vec::new(),
        },
    };
    Ok(Node {
        id: id.to_owned(),
        class: class.to_owned(),
        body,
    })
}

/// A link is a list of a node's id and an output's number; everything else is a value
/// (`is_link`, `comfy_execution/graph_utils.py`).
fn input(json: &Json) -> Input {
    let Some([node, slot]) = json.as_array().map(Vec::as_slice) else {
        return Input::Value(Value::from(json));
    };
    let slot = slot.as_u64().and_then(|slot| usize::try_from(slot).ok());
    match (node, slot) {
        (Json::String(node), Some(slot)) => Input::Link {
            node: node.clone(),
            slot,
        },
        (Json::Number(node), Some(slot)) => Input::Link {
            node: node.to_string(),
            slot,
        },
        _ => Input::Value(Value::from(json)),
    }
}

/// The one input of a reroute.
fn rerouted(inputs: BTreeMap<String, Input>) -> Vec<Input> {
    let first = inputs.into_values().next();
    vec![first.unwrap_or_else(|| Input::Missing("nothing is linked to a reroute".to_owned()))]
}
