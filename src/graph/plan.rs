//! Workflow → plan: everything but tensors.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::call::Call;
use super::class::NodeClass;
use super::library::Library;
use super::needs::{LoraUse, Need, Subfolder};
use super::recipe::{Encode, Recipe, Recipes, Step};
use super::run::Session;
use super::value::{Kind, Value};
use super::walk::{Vertex, Walk, absent, no_output};
use super::workflow::{Body, Input, Node, Place, Socket, Workflow};
use super::{broken, drawn};
use crate::conditioning::ConditioningList;
use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::prompt::comfy::{EmbeddingPiece, embedding_pieces};
use crate::prompt::{Piece, Prompt};
use crate::tokens::{Chunk, Splice, TokenId};
use crate::weights::EncoderId;

/// What has to be loaded and computed for some sockets of a workflow.
#[derive(Debug)]
pub struct Plan {
    wanted: Vec<(Socket, Recipe)>,
    recipes: Recipes,
    /// How often each step is used, by others and by sockets; 0 for what is not needed.
    uses: Vec<usize>,
    needs: BTreeSet<Need>,
}

impl Workflow {
    /// What is needed for what is wanted. Pure: no file is looked at. Nodes of unknown classes on the
    /// way are an error that names all of them; so are circles, missing inputs, links to nothing and
    /// wrong types. What is not on the way does not matter.
    pub fn plan(&self, wanted: &[Socket]) -> Result<Plan> {
        let (ends, wrong) = self.ends(wanted);
        let starts: Vec<Vertex> = ends.iter().map(|(_, end)| end.vertex).collect();
        let walk = Walk::back_from(self, &starts)?;
        if let Some(error) = wrong {
            return Err(error);
        }
        let mut evaluation = Evaluation {
            workflow: self,
            values: HashMap::with_capacity(walk.order.len()),
            recipes: Recipes::default(),
        };
        for vertex in &walk.order {
            evaluation.vertex(*vertex)?;
        }
        let wanted = ends.into_iter().map(|(socket, end)| {
            let recipe = evaluation.conditioning(socket, &end)?;
            Ok((socket.clone(), recipe))
        });
        Ok(Plan::of(wanted.collect::<Result<_>>()?, evaluation.recipes))
    }

    /// Where what is wanted comes from, and the first thing that is wrong with it.
    fn ends<'a>(&self, wanted: &'a [Socket]) -> (Vec<(&'a Socket, End)>, Option<Error>) {
        let mut wrong = None;
        let mut ends = Vec::with_capacity(wanted.len());
        for socket in wanted {
            match self.end(socket) {
                Ok(end) => ends.push((socket, end)),
                Err(error) => {
                    wrong.get_or_insert(error);
                }
            }
        }
        (ends, wrong)
    }

    /// Where what is wanted comes from.
    fn end(&self, socket: &Socket) -> Result<End> {
        let node = self.node(&socket.node)?;
        match &socket.place {
            Place::Output(slot) => self.end_at_output(node, *slot),
            Place::Input(name) => self.end_at_input(node, name),
        }
    }

    fn end_at_output(&self, node: &Node, slot: usize) -> Result<End> {
        let link = Input::Link {
            node: node.id.clone(),
            slot,
        };
        let vertex = self.source(node, "", &link)?;
        let vertex = vertex.ok_or_else(|| no_output(node, slot))?;
        Ok(End { vertex, slot })
    }

    fn end_at_input(&self, node: &Node, name: &str) -> Result<End> {
        let input = self.wanted_input(node, name);
        let input = input.ok_or_else(|| absent(node, name, ""))?;
        let Some(vertex) = self.source(node, name, &input)? else {
            let message = format!("input `{name}` of {} is a value", node.class);
            return Err(broken(message).at_node(&node.id));
        };
        let slot = match input {
            Input::Link { slot, .. } => slot,
            Input::Value(_) | Input::Missing(_) => 0,
        };
        Ok(End { vertex, slot })
    }

    fn wanted_input(&self, node: &Node, name: &str) -> Option<Input> {
        match (&node.body, self.classes.get(&node.class)) {
            (Body::Pass(_), _) => None,
            (Body::Work { .. }, Some(class)) => node.input(class, name),
            (Body::Work { inputs, .. }, None) => inputs.get(name).cloned(),
        }
    }
}

/// A vertex and which of its outputs.
struct End {
    vertex: Vertex,
    slot: usize,
}

struct Evaluation<'a> {
    workflow: &'a Workflow,
    values: HashMap<Vertex, Vec<Value>>,
    recipes: Recipes,
}

impl Evaluation<'_> {
    fn vertex(&mut self, vertex: Vertex) -> Result<()> {
        let workflow = self.workflow;
        let node = &workflow.nodes[vertex.node];
        let values = match (&node.body, workflow.classes.get(&node.class)) {
            (Body::Pass(inputs), _) => match inputs.get(vertex.slot) {
                Some(input) => vec![self.value(node, "", input)?],
                None => return Err(no_output(node, vertex.slot)),
            },
            (Body::Work { .. }, Some(class)) => self.work(node, class)?,
            (Body::Work { .. }, None) => return Err(broken("unknown class").at_node(&node.id)),
        };
        self.values.insert(vertex, values);
        Ok(())
    }

    fn work(&mut self, node: &Node, class: &dyn NodeClass) -> Result<Vec<Value>> {
        let mut inputs = HashMap::new();
        for inlet in class.inlets() {
            match node.input(class, inlet.name) {
                None | Some(Input::Missing(_)) => (),
                Some(input) => {
                    let value = self.value(node, inlet.name, &input)?;
                    let is_typed = (self.workflow).is_typed(node, class, (inlet.name, &input));
                    let value = if is_typed {
                        self.sent(node, value)
                    } else {
                        value
                    };
                    let value = value.to(inlet.kind);
                    let value = value.map_err(|error| unfit(node, inlet.name, &input, &error))?;
                    inputs.insert(inlet.name, value);
                }
            }
        }
        self.recipes.node = Arc::from(node.id.as_str());
        let mut call = Call {
            inputs,
            recipes: &mut self.recipes,
        };
        let values = class.evaluate(&mut call);
        values.map_err(|error| error.at_node(&node.id))
    }

    /// What the editor sends of a typed text.
    fn sent(&mut self, node: &Node, typed: Value) -> Value {
        let Value::Text(text) = &typed else {
            return typed;
        };
        let sent = drawn::sent(text);
        if sent.choices > 0 {
            let message = format!(
                "the editor draws lots where a prompt has `{{one|other}}`; here the first was taken, {} times",
                sent.choices
            );
            self.recipes.note(node.id.as_str(), message);
        }
        Value::text(sent.text)
    }

    fn value(&self, node: &Node, name: &str, input: &Input) -> Result<Value> {
        match input {
            Input::Value(value) => Ok(value.clone()),
            Input::Missing(why) => Err(absent(node, name, why)),
            Input::Link { slot, .. } => {
                let vertex = self.workflow.source(node, name, input)?;
                let vertex = vertex.ok_or_else(|| absent(node, name, ""))?;
                self.output(vertex, *slot)
            }
        }
    }

    fn output(&self, vertex: Vertex, slot: usize) -> Result<Value> {
        let node = &self.workflow.nodes[vertex.node];
        let slot = match node.body {
            Body::Pass(_) => 0,
            Body::Work { .. } => slot,
        };
        let values = self.values.get(&vertex);
        let value = values.and_then(|values| values.get(slot));
        value.cloned().ok_or_else(|| no_output(node, slot))
    }

    fn conditioning(&self, socket: &Socket, end: &End) -> Result<Recipe> {
        match self.output(end.vertex, end.slot)?.to(Kind::Conditioning) {
            Ok(Value::Conditioning(recipe)) => Ok(recipe),
            Ok(other) => Err(broken(format!("{socket} is {}", other.name())).at_node(&socket.node)),
            Err(error) => {
                let message = format!("{socket}: {}", error.message());
                Err(broken(message).at_node(&socket.node))
            }
        }
    }
}

fn unfit(node: &Node, name: &str, input: &Input, error: &Error) -> Error {
    let from = match input {
        Input::Link { node, slot } => format!(" (from output {slot} of node {node})"),
        Input::Value(_) | Input::Missing(_) => String::new(),
    };
    let message = format!(
        "input `{name}` of {}: {}{from}",
        node.class,
        error.message()
    );
    broken(message).at_node(&node.id)
}

impl Plan {
    fn of(wanted: Vec<(Socket, Recipe)>, recipes: Recipes) -> Plan {
        let mut plan = Plan {
            uses: uses(&wanted, recipes.steps()),
            wanted,
            recipes,
            needs: BTreeSet::new(),
        };
        plan.needs = plan.encodings().flat_map(Encode::needs).collect();
        plan
    }

    /// What is wanted, in the order it was asked for.
    pub fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.wanted.iter().map(|(socket, _)| socket)
    }

    /// Every file that is read, sorted. Embeddings that are not there are left out of a prompt with
    /// a note, as in `ComfyUI`; a missing file of another kind is an error.
    pub fn needs(&self) -> impl Iterator<Item = &Need> {
        self.needs.iter()
    }

    /// The checkpoints, by the workflow's names.
    pub fn checkpoints(&self) -> Vec<&str> {
        self.names(Subfolder::Checkpoints)
    }

    /// The LoRAs, by the workflow's names.
    pub fn loras(&self) -> Vec<&str> {
        self.names(Subfolder::Loras)
    }

    /// The embeddings that prompts name.
    pub fn embeddings(&self) -> Vec<&str> {
        self.names(Subfolder::Embeddings)
    }

    fn names(&self, subfolder: Subfolder) -> Vec<&str> {
        let needs = self.needs.iter();
        let needs = needs.filter(|need| need.subfolder == subfolder);
        needs.map(|need| need.name.as_str()).collect()
    }

    /// How many distinct prompts are encoded: equal texts for equal encoders are one.
    pub fn n_encodings(&self) -> usize {
        self.encodings().count()
    }

    /// How many distinct windows are encoded. A window counts once for each set of encoders (files,
    /// LoRAs, clip skip), though SDXL has two that run it; with the window of the empty prompt where
    /// strengths need it, without the masked windows of compel-like methods. An embedding counts as
    /// one vector, as long as its file is not read.
    pub fn n_windows(&self) -> usize {
        let mut windows: HashSet<(String, EncoderId, Window)> = HashSet::new();
        for encode in self.encodings() {
            let clip = format!("{:?}", encode.clip);
            for (encoder, chunks) in encode.windows() {
                let empty = Chunk::empty(chunks.padding());
                let empty = Some(&empty).filter(|_| chunks.has_emphasis());
                for chunk in chunks.iter().chain(empty) {
                    let window = (chunk.ids().to_vec(), chunk.splices().to_vec());
                    windows.insert((clip.clone(), encoder, window));
                }
            }
        }
        windows.len()
    }

    /// Makes everything, once.
    pub fn run<L: Library>(&self, library: L) -> Result<Vec<ConditioningList>> {
        Session::new(library).run(self)
    }

    fn encodings(&self) -> impl Iterator<Item = &Encode> {
        let steps = self.recipes.steps().iter().zip(&self.uses);
        steps.filter_map(|(step, uses)| match step {
            Step::Encode(encode) if *uses > 0 => Some(encode),
            _ => None,
        })
    }

    pub(super) fn wanted(&self) -> &[(Socket, Recipe)] {
        &self.wanted
    }

    pub(super) fn recipes(&self) -> &Recipes {
        &self.recipes
    }

    pub(super) fn uses(&self) -> &[usize] {
        &self.uses
    }

    /// The prompts that are needed, from this step on.
    pub(super) fn encodes_from(&self, number: usize) -> impl Iterator<Item = (usize, &Encode)> {
        let steps = self.recipes.steps().iter().enumerate().skip(number);
        steps.filter_map(|(number, step)| match step {
            Step::Encode(encode) if self.uses[number] > 0 => Some((number, encode)),
            _ => None,
        })
    }
}

type Window = (Vec<TokenId>, Vec<Splice>);

/// Steps name earlier steps only, so one pass from the last to the first counts all.
fn uses(wanted: &[(Socket, Recipe)], steps: &[Step]) -> Vec<usize> {
    let mut uses = vec![0_usize; steps.len()];
    for (_, recipe) in wanted {
        uses[recipe.0 as usize] += 1;
    }
    for (number, step) in steps.iter().enumerate().rev() {
        if uses[number] > 0 {
            for input in step.inputs() {
                uses[input as usize] += 1;
            }
        }
    }
    uses
}

impl Encode {
    fn needs(&self) -> Vec<Need> {
        let mut needs = self.clip.source.needs();
        needs.extend(self.clip.loras.iter().map(LoraUse::need));
        let texts = self.texts.by_encoder().into_iter();
        let names = texts.flat_map(|(_, text)| embedding_names(text));
        needs.extend(names.map(|name| Need {
            subfolder: Subfolder::Embeddings,
            name,
        }));
        needs
    }
}

/// The names behind `embedding:` in a prompt, without commas at their ends.
fn embedding_names(text: &str) -> Vec<String> {
    let prompt = Prompt::parse(text, Profile::ComfyUi.choices().dialect);
    let mut names = Vec::new();
    for piece in prompt.pieces() {
        if let Piece::Text { text, span, .. } = piece {
            for part in embedding_pieces(text, span.clone()) {
                if let EmbeddingPiece::Embedding { name, .. } = part {
                    names.push(name.trim_matches(',').to_owned());
                }
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}
