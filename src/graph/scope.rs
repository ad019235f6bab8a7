//! One level of the editor's format: the whole file, or the inside of a subgraph.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::broken;
use super::value::Value;
use crate::error::Result;

/// The id of the border that links come from in a subgraph.
pub(super) const ENTRANCE_ID: &str = "-10";
/// The id of the border that links go to.
const EXIT_ID: &str = "-20";

/// Where a link comes from: a node of the scope, and its output.
type Origin = (String, usize);

/// One level.
pub(super) struct Scope<'a> {
    /// The ids of the instances around it; `None` for the whole file.
    pub(super) prefix: Option<String>,
    pub(super) items: Vec<Item<'a>>,
    pub(super) links: HashMap<u64, Origin>,
    /// What is linked to the outputs of a subgraph.
    pub(super) exits: HashMap<usize, Origin>,
    /// Inputs of the subgraph that nothing is given to.
    pub(super) unfed: HashSet<usize>,
    /// The subgraphs around it.
    around: HashSet<&'a str>,
}

/// A node as it is drawn.
pub(super) struct Item<'a> {
    pub(super) id: String,
    pub(super) class: &'a str,
    pub(super) mode: u64,
    pub(super) inputs: Vec<Slot<'a>>,
    /// Types.
    pub(super) outputs: Vec<&'a str>,
    pub(super) widgets: Vec<Value>,
    /// Where the file has them by name.
    pub(super) named_widgets: Vec<(String, Value)>,
    /// `properties.proxyWidgets`: which widgets of inner nodes an instance shows.
    pub(super) proxies: Vec<(String, String)>,
}

/// An input as it is drawn.
pub(super) struct Slot<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'a str,
    pub(super) link: Option<u64>,
    pub(super) has_widget: bool,
}

impl<'a> Scope<'a> {
    /// The whole file.
    pub(super) fn whole(root: &'a Json) -> Result<Scope<'a>> {
        Scope::read(root, None, HashSet::new())
    }

    /// The inside of an instance.
    pub(super) fn inside(&self, item: &Item<'a>, inner: &'a Json) -> Result<Scope<'a>> {
        let id = match &self.prefix {
            Some(prefix) => format!("{prefix}:{}", item.id),
            None => item.id.clone(),
        };
        let mut around = self.around.clone();
        if !around.insert(item.class) {
            let message = format!("the subgraph {} is inside itself", item.class);
            return Err(broken(message).at_node(id));
        }
        Scope::read(inner, Some(id), around)
    }

    fn read(json: &'a Json, prefix: Option<String>, around: HashSet<&'a str>) -> Result<Self> {
        let at = prefix.clone();
        let failed = |error: crate::error::Error| match &at {
            Some(prefix) => error.at_node(prefix),
            None => error,
        };
        let nodes = list(json, "nodes").map_err(failed)?;
        let links = list(json, "links").map_err(failed)?;
        let mut scope = Scope {
            prefix,
            items: nodes
                .iter()
                .map(item)
                .collect::<Result<_>>()
                .map_err(failed)?,
            links: HashMap::new(),
            exits: HashMap::new(),
            unfed: HashSet::new(),
            around,
        };
        for link in links {
            scope.add_link(link).map_err(failed)?;
        }
        Ok(scope)
    }

    /// A list of id, origin, output, target, input and type, or an object with those; `null` where
    /// one was removed.
    fn add_link(&mut self, link: &Json) -> Result<()> {
        if link.is_null() {
            return Ok(());
        }
        let wrong = || broken(format!("a link of another form: {}", shown(link)));
        let [id, origin, slot, target, target_slot] = link_parts(link)[..] else {
            return Err(wrong());
        };
        let found = id.as_u64().zip(id_of(origin)).zip(slot_of(slot));
        let ((id, origin), slot) = found.ok_or_else(wrong)?;
        if id_of(target).as_deref() == Some(EXIT_ID)
            && let Some(target_slot) = slot_of(target_slot)
        {
            self.exits.insert(target_slot, (origin.clone(), slot));
        }
        self.links.insert(id, (origin, slot));
        Ok(())
    }
}

/// Id, origin, output, target and input; fewer where some are missing.
fn link_parts(link: &Json) -> Vec<&Json> {
    match link {
        Json::Array(parts) => parts.iter().take(5).collect(),
        Json::Object(parts) => {
            let names = ["id", "origin_id", "origin_slot", "target_id", "target_slot"];
            names.iter().filter_map(|name| parts.get(*name)).collect()
        }
        _ => Vec::new(),
    }
}

/// Subgraphs by id.
pub(super) fn definitions(root: &Json) -> Result<HashMap<&str, &Json>> {
    let Some(definitions) = root.get("definitions") else {
        return Ok(HashMap::new());
    };
    let subgraphs = list(definitions, "subgraphs")?.iter();
    let named = subgraphs.filter_map(|one| Some((one.get("id")?.as_str()?, one)));
    Ok(named.collect())
}

/// The names of a subgraph's inputs or outputs.
pub(super) fn border<'a>(definition: &'a Json, side: &str) -> Vec<&'a str> {
    let slots = definition.get(side).and_then(Json::as_array);
    let slots = slots.into_iter().flatten();
    slots.map(|slot| text(slot, "name")).collect()
}

fn item(json: &Json) -> Result<Item<'_>> {
    let id = json.get("id").and_then(id_of);
    let id = id.ok_or_else(|| broken(format!("a node without an id: {}", shown(json))))?;
    let class = json.get("type").and_then(Json::as_str);
    let class = class.ok_or_else(|| broken("no `type`").at_node(&id))?;
    let inputs = list(json, "inputs").map_err(|error| error.at_node(&id))?;
    let outputs = list(json, "outputs").map_err(|error| error.at_node(&id))?;
    let (widgets, named_widgets) = widgets(json.get("widgets_values"));
    Ok(Item {
        class,
        mode: json.get("mode").and_then(Json::as_u64).unwrap_or(0),
        inputs: inputs.iter().map(slot).collect(),
        outputs: outputs.iter().map(|output| text(output, "type")).collect(),
        widgets,
        named_widgets,
        proxies: proxies(json),
        id,
    })
}

fn slot(json: &Json) -> Slot<'_> {
    Slot {
        name: text(json, "name"),
        kind: text(json, "type"),
        link: json.get("link").and_then(Json::as_u64),
        has_widget: json.get("widget").is_some_and(|widget| !widget.is_null()),
    }
}

/// By place, or by name.
fn widgets(json: Option<&Json>) -> (Vec<Value>, Vec<(String, Value)>) {
    match json {
        Some(Json::Array(values)) => (values.iter().map(Value::from).collect(), Vec::new()),
        Some(Json::Object(values)) => {
            let named = values.iter();
            let named = named.map(|(name, value)| (name.clone(), Value::from(value)));
            (Vec::new(), named.collect())
        }
        _ => (Vec::new(), Vec::new()),
    }
}

fn proxies(json: &Json) -> Vec<(String, String)> {
    let listed = json.pointer("/properties/proxyWidgets");
    let listed = listed.and_then(Json::as_array).into_iter().flatten();
    let pairs = listed.filter_map(|pair| match pair.as_array().map(Vec::as_slice) {
        Some([node, name]) => Some((id_of(node)?, name.as_str()?.to_owned())),
        _ => None,
    });
    pairs.collect()
}

/// A list; empty where it is absent or `null`.
fn list<'a>(json: &'a Json, name: &str) -> Result<&'a [Json]> {
    match json.get(name) {
        None | Some(Json::Null) => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(_) => Err(broken(format!("`{name}` is not a list"))),
    }
}

/// Ids are numbers or texts.
fn id_of(json: &Json) -> Option<String> {
    match json {
        Json::Number(number) => Some(number.to_string()),
        Json::String(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn slot_of(json: &Json) -> Option<usize> {
    json.as_u64().and_then(|slot| usize::try_from(slot).ok())
}

pub(super) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(Arc::as_ref(text)),
        _ => None,
    }
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json.get(name).and_then(Json::as_str).unwrap_or_default()
}

/// The beginning of some JSON.
fn shown(json: &Json) -> String {
    const SHOWN: usize = 60;
    json.to_string().chars().take(SHOWN).collect()
}
