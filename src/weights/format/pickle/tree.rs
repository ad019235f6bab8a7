//! What a pickle built → its tensors by name: wrappers are taken off, what is nested is spelt out.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::machine::Built;
use super::value::{Id, Tensor, Value, Values};
use super::{broken, refused};
use crate::error::{Error, Result, named};

/// How deep dictionaries and lists may be nested.
const MAX_DEPTH: usize = 64;

/// The longest name, and the most tensors; real ones have some hundred bytes, and some thousand.
const MAX_NAME: usize = 512;
const MAX_TENSORS: usize = 1 << 17;

/// How many names of classes a message spells out.
const SPELT_OUT: usize = 3;

/// The name that a tensor without one gets: A1111's for the vectors of an embedding.
const BARE: &str = "emb_params";

/// The key that holds the weights beside other things, of Lightning, `open_clip` and diffusers.
const STATE: &str = "state_dict";

/// Others, as ComfyUI-GGUF's converter looks for them.
const WRAPPERS: [&str; 2] = ["model", "module"];

/// What stands for a class whose items are in its state.
const PARAMETER_DICT: &str = "torch.nn.modules.container.ParameterDict";

/// Tensors by name, and what was left.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) tensors: BTreeMap<String, Rc<Tensor>>,
    pub(super) notes: Vec<String>,
}

/// All tensors below the root, or below what wraps it.
pub(super) fn find(built: &Built) -> Result<Found> {
    let (values, mut found) = (&built.values, Found::default());
    let (root, path) = unwrap(values, built.root)?;
    if !path.is_empty() {
        let path = path.join(".");
        found.notes.push(format!("the weights are under `{path}`"));
    }
    let walk = Walk::over(values, root)?;
    if walk.tensors.is_empty() {
        return Err(nothing(&walk.left));
    }
    if !walk.left.is_empty() {
        let left = spell(&walk.left);
        found.notes.push(format!(
            "objects that are no weights were not built: {left}"
        ));
    }
    found.tensors = walk.tensors;
    Ok(found)
}

/// Goes down through wrappers to the dictionary of weights.
fn unwrap(values: &Values, root: Id) -> Result<(Id, Vec<String>)> {
    let (mut at, mut path) = (root, Vec::new());
    while let Value::Dict(items) = values.get(at) {
        let Some((key, inner)) = inner(values, at, items) else {
            break;
        };
        if path.len() == MAX_DEPTH {
            return Err(deep());
        }
        path.push(key.to_owned());
        at = inner;
    }
    Ok((at, path))
}

/// The wrapped dictionary, unless this one has tensors itself. Beside a `state_dict` they are counters
/// of a trainer: all readers of checkpoints take what is in it.
fn inner<'a>(values: &'a Values, at: Id, items: &'a [(Id, Id)]) -> Option<(&'a str, Id)> {
    let is_tensor = |id: Id| matches!(values.get(id), Value::Tensor(_));
    let is_dict = |id: Id| matches!(values.get(id), Value::Dict(_) | Value::Object { .. });
    if let Some(value) = values.field(at, STATE).filter(|value| is_dict(*value)) {
        return Some((STATE, value));
    }
    if items.iter().any(|(_, value)| is_tensor(*value)) {
        return None;
    }
    let named = WRAPPERS
        .iter()
        .find_map(|key| Some((*key, values.field(at, key)?)));
    if let Some((key, value)) = named.filter(|(_, value)| is_dict(*value)) {
        return Some((key, value));
    }
    match items {
        [(key, value)] if matches!(values.get(*value), Value::Dict(_)) => {
            let key = values.text(*key)?;
            (&**key != "string_to_param").then_some((key, *value))
        }
        _ => None,
    }
}

/// A walk over everything below a value.
struct Walk<'a> {
    values: &'a Values,
    /// Containers that were walked: shared and circular ones are walked once.
    seen: BTreeSet<Id>,
    /// What was found in states, which objects may share.
    states: BTreeMap<Id, Option<Id>>,
    /// Classes of objects that were passed over.
    left: BTreeSet<Rc<str>>,
    tensors: BTreeMap<String, Rc<Tensor>>,
}

impl<'a> Walk<'a> {
    /// Has been to the root and to everything below it.
    fn over(values: &'a Values, root: Id) -> Result<Walk<'a>> {
        let mut walk = Walk {
            values,
            seen: BTreeSet::new(),
            states: BTreeMap::new(),
            left: BTreeSet::new(),
            tensors: BTreeMap::new(),
        };
        walk.begin(root)?;
        Ok(walk)
    }

    /// Takes in the root and what is below it.
    fn begin(&mut self, root: Id) -> Result<()> {
        match self.values.get(root) {
            Value::Tensor(tensor) => {
                self.tensors.insert(BARE.to_owned(), Rc::clone(tensor));
                Ok(())
            }
            Value::Object { class, .. } if self.parameters(root).is_none() => {
                Err(whole(self.values, root, class))
            }
            _ => self.descend(root, "", 0),
        }
    }

    /// Takes in all tensors below a container.
    fn descend(&mut self, id: Id, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(deep());
        }
        if !self.seen.insert(id) {
            return Ok(());
        }
        let id = match self.parameters(id) {
            Some(inner) if !self.seen.insert(inner) => return Ok(()),
            inner => inner.unwrap_or(id),
        };
        match self.values.get(id) {
            Value::Dict(items) => self.items(items, prefix, depth)?,
            Value::List(members) | Value::Tuple(members) => self.members(members, prefix, depth)?,
            Value::Object { class, .. } => {
                self.left.insert(Rc::clone(class));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes in what a dictionary holds.
    fn items(&mut self, items: &[(Id, Id)], prefix: &str, depth: usize) -> Result<()> {
        let values = self.values;
        for (key, value) in items.iter().filter(|(_, value)| values.leads_on(*value)) {
            let name = self.key(*key, *value)?;
            self.visit(*value, &join(prefix, &name), depth)?;
        }
        Ok(())
    }

    /// Takes in what a list or tuple holds. Members are named `[0]`, `[1]`…
    fn members(&mut self, members: &[Id], prefix: &str, depth: usize) -> Result<()> {
        let (values, members) = (self.values, members.iter().enumerate());
        for (index, member) in members.filter(|(_, member)| values.leads_on(**member)) {
            self.visit(*member, &join(prefix, &format!("[{index}]")), depth)?;
        }
        Ok(())
    }

    fn visit(&mut self, id: Id, name: &str, depth: usize) -> Result<()> {
        if name.len() > MAX_NAME {
            return Err(long(name));
        }
        let Value::Tensor(tensor) = self.values.get(id) else {
            return self.descend(id, name, depth + 1);
        };
        if self.tensors.len() == MAX_TENSORS {
            return Err(broken(format!("more than {MAX_TENSORS} tensors")));
        }
        let twice = self.tensors.insert(name.to_owned(), Rc::clone(tensor));
        match twice {
            Some(_) => Err(broken("this name is there twice").at_tensor(name)),
            None => Ok(()),
        }
    }

    /// The text of a key. Lightning has classes as keys, of what holds no weights.
    fn key(&self, key: Id, value: Id) -> Result<String> {
        match self.values.get(key) {
            Value::Text(text) if text.len() > MAX_NAME => Err(long(text)),
            Value::Text(text) => Ok(text.to_string()),
            _ if matches!(self.values.get(value), Value::Tensor(_)) => {
                Err(broken("a tensor stands under a key that is not a text"))
            }
            Value::Int(number) => Ok(number.to_string()),
            _ => Ok("?".to_owned()),
        }
    }

    /// The dictionary inside a `ParameterDict`: `_parameters` of its state.
    fn parameters(&mut self, id: Id) -> Option<Id> {
        let values = self.values;
        match values.get(id) {
            Value::Object {
                class,
                state: Some(state),
            } if &**class == PARAMETER_DICT => *self
                .states
                .entry(*state)
                .or_insert_with(|| values.field(*state, "_parameters")),
            _ => None,
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

/// The file is one object: a model as a whole, or something else.
fn whole(values: &Values, root: Id, class: &str) -> Error {
    let state = match values.get(root) {
        Value::Object { state, .. } => *state,
        _ => None,
    };
    let has = |field| state.is_some_and(|state| values.field(state, field).is_some());
    let message = if has("_modules") || has("_parameters") {
        format!("this is a whole pickled model, a `{class}`, which could only be had by running it")
    } else {
        format!("this is a pickled `{class}`, not a dictionary of weights")
    };
    refused(message).hint("save its state_dict(), best as .safetensors")
}

fn nothing(left: &BTreeSet<Rc<str>>) -> Error {
    let beside = if left.is_empty() {
        String::new()
    } else {
        format!("; it has {}, which are not built", spell(left))
    };
    broken(format!("the pickle holds no tensor{beside}"))
}

fn long(name: &str) -> Error {
    let start: String = name.chars().take(40).collect();
    broken(format!("a name of {} bytes: `{start}…`", name.len()))
}

fn deep() -> Error {
    broken(format!("the pickle is nested deeper than {MAX_DEPTH}"))
}

fn spell(classes: &BTreeSet<Rc<str>>) -> String {
    let some = classes.iter().take(SPELT_OUT);
    let some: Vec<_> = some.map(|class| format!("`{}`", named(class))).collect();
    let more = classes.len().saturating_sub(SPELT_OUT);
    let rest = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{rest}", some.join(", "))
}
