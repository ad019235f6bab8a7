//! PLAN → CONDITIONINGS: loads, encodes and combines, each step once.

use std::collections::HashMap;

use super::cache::{Cache, Key};
use super::library::Library;
use super::needs::{Clip, Need};
use super::plan::Plan;
use super::recipe::{Change, Encode, MOST_WINDOWS, MaskStep, Step, Texts};
use super::workflow::Socket;
use super::{broken, nodes};
use crate::conditioner::{Conditioner, Embeddings};
use crate::conditioning::{ConditioningList, Mask};
use crate::error::{Error, ErrorKind, Result};
use crate::tokens::CONTEXT;
use crate::weights::Family;

/// Prompts that go through the encoders together.
const TOGETHER: usize = 16;

/// Encodings that are kept from run to run, unless another number is set.
const KEPT: usize = 512;

/// Follows plans, and keeps what it loaded and encoded for the next one.
///
/// Encoders that a run does not use are let go. Encodings are known by their content (windows,
/// strengths, vectors, encoders, LoRAs, clip skip, data type), so that after a change only what is
/// new is encoded.
#[derive(Debug)]
pub struct Session<L> {
    library: L,
    loaded: HashMap<String, Loaded>,
    cache: Cache,
}

#[derive(Clone, Debug)]
struct Loaded {
    stamp: u64,
    text: Conditioner,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Encoders that were loaded from files.
    pub loaded: usize,
    /// Prompts that were encoded.
    pub encoded: usize,
    /// Prompts that were there from before.
    pub reused: usize,
    /// What was cut, guessed or reproduced, with the node that has the prompt.
    pub notes: Vec<(String, String)>,
}

/// What a step made.
#[derive(Clone, Debug)]
enum Made {
    List(ConditioningList),
    Mask(Mask),
}

impl<L: Library> Session<L> {
    /// A session that has nothing yet.
    pub fn new(library: L) -> Session<L> {
        Session {
            library,
            loaded: HashMap::new(),
            cache: Cache::new(KEPT),
        }
    }

    /// How many encodings are kept; 0 for none.
    #[must_use]
    pub fn keeping(mut self, most: usize) -> Session<L> {
        self.cache = Cache::new(most);
        self
    }

    /// Makes what the plan says, in the order of its sockets.
    pub fn run(&mut self, plan: &Plan) -> Result<Vec<ConditioningList>> {
        let mut made: HashMap<Socket, ConditioningList> = HashMap::new();
        self.run_each(plan, &mut |socket, list| {
            made.insert(socket.clone(), list.clone());
            Ok(())
        })?;
        let sockets = plan.sockets();
        let lists = sockets.map(|socket| made.get(socket).cloned().unwrap_or_default());
        Ok(lists.collect())
    }

    /// The same, handing each conditioning over as soon as it is there, so that not all are in memory
    /// at once. All files are looked for before the first is read; every missing one is named. An
    /// error of `each` ends the run.
    pub fn run_each(
        &mut self,
        plan: &Plan,
        each: &mut dyn FnMut(&Socket, &ConditioningList) -> Result<()>,
    ) -> Result<Summary> {
        self.check(plan)?;
        let embeddings = self.library.embeddings()?;
        let n_steps = plan.uses().len();
        let mut run = Run {
            session: self,
            plan,
            embeddings: embeddings.as_ref(),
            handles: HashMap::new(),
            made: vec![None; n_steps],
            left: plan.uses().to_vec(),
            summary: Summary::default(),
        };
        let done = run.all(each);
        let (handles, summary) = (run.handles, run.summary);
        if done.is_ok() {
            self.loaded.clear();
        }
        self.loaded.extend(handles);
        done.map(|()| summary)
    }

    /// Every file that is not there, in one error.
    fn check(&self, plan: &Plan) -> Result<()> {
        let missing = plan.needs().filter_map(|need| {
            let error = self.library.check(need).err()?;
            Some((need, error))
        });
        let mut missing: Vec<(&Need, Error)> = missing.collect();
        let Some((first, error)) = missing.pop() else {
            return Ok(());
        };
        let node = plan.recipes().named_by(first).unwrap_or_default();
        if missing.is_empty() {
            return Err(error.at_node(node));
        }
        let others = missing.iter().map(|(need, _)| {
            let node = plan.recipes().named_by(need).unwrap_or_default();
            format!("node {node}: no {need}")
        });
        let others: Vec<String> = others.collect();
        let message = format!("{}; {}", error.message(), others.join("; "));
        let all = Error::new(error.kind(), message).at_node(node);
        Err(match error.path() {
            Some(path) => all.at_path(path),
            None => all,
        })
    }
}

/// One run.
struct Run<'a, L> {
    session: &'a mut Session<L>,
    plan: &'a Plan,
    embeddings: Option<&'a Embeddings>,
    /// Encoders of this run, with and without LoRAs.
    handles: HashMap<String, Loaded>,
    made: Vec<Option<Made>>,
    /// How often each step will still be used.
    left: Vec<usize>,
    summary: Summary,
}

impl<L: Library> Run<'_, L> {
    fn all(
        &mut self,
        each: &mut dyn FnMut(&Socket, &ConditioningList) -> Result<()>,
    ) -> Result<()> {
        let plan = self.plan;
        let mut sockets: HashMap<u32, Vec<&Socket>> = HashMap::new();
        for (socket, recipe) in plan.wanted() {
            sockets.entry(recipe.0).or_default().push(socket);
        }
        let needed = plan
            .uses()
            .iter()
            .enumerate()
            .filter(|(_, uses)| **uses > 0);
        for (step, _) in needed {
            self.step(step)
                .map_err(|error| error.at_node(plan.recipes().node_of(step)))?;
            let number = u32::try_from(step).unwrap_or(u32::MAX);
            for socket in sockets.get(&number).into_iter().flatten() {
                each(socket, &self.list(number)?)?;
                self.used(number);
            }
        }
        Ok(())
    }

    fn step(&mut self, number: usize) -> Result<()> {
        let plan = self.plan;
        let step = &plan.recipes().steps()[number];
        let made = match step {
            Step::Encode(_) => {
                if self.made[number].is_none() {
                    self.encode_from(number)?;
                }
                return Ok(());
            }
            Step::Change(of, change) => Made::List(changed(&self.list(*of)?, change)?),
            Step::Combine(one, two) => Made::List(self.list(*one)?.combine(&self.list(*two)?)),
            Step::Concat(to, from) => Made::List(self.list(*to)?.concat(&self.list(*from)?)?),
            Step::Average(to, from, share) => {
                Made::List(self.list(*to)?.average(&self.list(*from)?, *share)?)
            }
            Step::Masked {
                of,
                mask,
                strength,
                area,
            } => Made::List(
                self.list(*of)?
                    .with_mask(&self.mask(*mask)?, *strength, *area)?,
            ),
            Step::Mask(step) => Made::Mask(self.make_mask(step)?),
            Step::Custom(custom) => {
                let lists = custom.inputs.iter().map(|input| self.list(*input));
                let lists = lists.collect::<Result<Vec<_>>>()?;
                Made::List((custom.function)(&lists.iter().collect::<Vec<_>>())?)
            }
        };
        if let Made::List(list) = &made {
            check_size(list)?;
        }
        self.made[number] = Some(made);
        for input in step.inputs() {
            self.used(input);
        }
        Ok(())
    }

    /// Lets go of what is not needed any more.
    fn used(&mut self, number: u32) {
        let number = number as usize;
        self.left[number] = self.left[number].saturating_sub(1);
        if self.left[number] == 0 {
            self.made[number] = None;
        }
    }

    fn list(&self, number: u32) -> Result<ConditioningList> {
        match self.made.get(number as usize) {
            Some(Some(Made::List(list))) => Ok(list.clone()),
            _ => Err(broken("a step that makes no conditioning is used as one")),
        }
    }

    fn mask(&self, number: u32) -> Result<Mask> {
        match self.made.get(number as usize) {
            Some(Some(Made::Mask(mask))) => Ok(mask.clone()),
            _ => Err(broken("a step that makes no mask is used as one")),
        }
    }

    fn make_mask(&self, step: &MaskStep) -> Result<Mask> {
        match step {
            MaskStep::Solid {
                value,
                width,
                height,
            } => nodes::mask::solid(*value, *width as usize, *height as usize),
            MaskStep::Inverted(of) => nodes::mask::inverted(&self.mask(*of)?),
            MaskStep::Composite {
                destination,
                source,
                x,
                y,
                operation,
            } => {
                let place = (*x as usize, *y as usize);
                let (destination, source) = (self.mask(*destination)?, self.mask(*source)?);
                nodes::mask::composite(&destination, &source, place, *operation)
            }
        }
    }

    /// Encodes this prompt and the next ones for the same encoders.
    fn encode_from(&mut self, number: usize) -> Result<()> {
        let plan = self.plan;
        let steps = plan.recipes().steps().iter().enumerate().skip(number);
        let encodes = steps.filter_map(|(number, step)| match step {
            Step::Encode(encode) if plan.uses()[number] > 0 => Some((number, encode)),
            _ => None,
        });
        let Some((_, first)) = encodes.clone().next() else {
            return Ok(());
        };
        let text = self.handle(&first.clip)?;
        let same = encodes.filter(|(_, encode)| {
            encode.clip.source == first.clip.source && encode.clip.loras == first.clip.loras
        });
        let mut group: Vec<(usize, &Encode, Key)> = Vec::new();
        for (number, encode) in same {
            if group.len() >= TOGETHER {
                break;
            }
            if self.made[number].is_none() {
                let key = self.known_or_key(number, encode, &text);
                let key = key.map_err(|error| error.at_node(plan.recipes().node_of(number)))?;
                group.extend(key.map(|key| (number, encode, key)));
            }
        }
        self.encode_group(&text, &group)
    }

    /// Takes a prompt from the cache; its key if it is not there.
    fn known_or_key(
        &mut self,
        number: usize,
        encode: &Encode,
        text: &Conditioner,
    ) -> Result<Option<Key>> {
        if matches!(encode.texts, Texts::PerEncoder { .. }) && text.family() != Family::Sdxl {
            let message = format!("two texts for {}, which has one encoder", text.family());
            return Err(broken(message).hint("CLIPTextEncodeSDXL is for SDXL"));
        }
        let request = encode.request(self.embeddings);
        let (key, windows) = encode.key(text, &request, self.embeddings)?;
        if windows > MOST_WINDOWS {
            let message = format!("a prompt of {windows} windows; {MOST_WINDOWS} are the most");
            return Err(broken(message));
        }
        let Some(conditioning) = self.session.cache.get(&key) else {
            return Ok(Some(key));
        };
        self.summary.reused += 1;
        self.keep(number, conditioning);
        Ok(None)
    }

    fn encode_group(&mut self, text: &Conditioner, group: &[(usize, &Encode, Key)]) -> Result<()> {
        let requests: Vec<_> = group
            .iter()
            .map(|(_, encode, _)| encode.request(self.embeddings))
            .collect();
        if requests.is_empty() {
            return Ok(());
        }
        let encoded = text.encode_batch(&requests)?;
        self.summary.encoded += group.len();
        for ((number, _, key), conditioning) in group.iter().zip(encoded) {
            self.session.cache.put(*key, conditioning.clone());
            self.keep(*number, conditioning);
        }
        Ok(())
    }

    fn keep(&mut self, number: usize, conditioning: crate::conditioning::Conditioning) {
        let node = self.plan.recipes().node_of(number);
        for note in conditioning.notes() {
            let note = (node.to_owned(), note.message.clone());
            self.summary.notes.push(note);
        }
        self.made[number] = Some(Made::List(conditioning.into()));
    }

    /// Encoders with their LoRAs: from this run, from the last one, or from files.
    fn handle(&mut self, clip: &Clip) -> Result<Conditioner> {
        let bare = self.loaded(
            &format!("{:?}", clip.source),
            &clip.source.needs(),
            |session| session.library.load(&clip.source),
        )?;
        if clip.loras.is_empty() {
            return Ok(bare);
        }
        let mut needs = clip.source.needs();
        needs.extend(clip.loras.iter().map(|lora| Need {
            subfolder: super::Subfolder::Loras,
            name: lora.name.clone(),
        }));
        let name = format!("{:?} {:?}", clip.source, clip.loras);
        self.loaded(&name, &needs, |session| {
            session.library.with_loras(&bare, &clip.loras)
        })
    }

    fn loaded(
        &mut self,
        name: &str,
        needs: &[Need],
        load: impl FnOnce(&Session<L>) -> Result<Conditioner>,
    ) -> Result<Conditioner> {
        if let Some(loaded) = self.handles.get(name) {
            return Ok(loaded.text.clone());
        }
        let stamp = self.session.library.stamp(needs);
        let before = self.session.loaded.remove(name);
        let loaded = if let Some(loaded) = before.filter(|loaded| loaded.stamp == stamp) {
            loaded
        } else {
            let node = needs.last();
            let node = node.and_then(|need| self.plan.recipes().named_by(need));
            let text = load(self.session);
            let text = text.map_err(|error| match node {
                Some(node) => error.at_node(node),
                None => error,
            })?;
            self.summary.loaded += 1;
            Loaded { stamp, text }
        };
        self.handles.insert(name.to_owned(), loaded.clone());
        Ok(loaded.text)
    }
}

fn changed(list: &ConditioningList, change: &Change) -> Result<ConditioningList> {
    match change {
        Change::Zero => list.zeroed(),
        Change::Area(area, strength) => list.with_area(*area, *strength),
        Change::Strength(strength) => list.with_strength(*strength),
        Change::Range(start, end) => list.with_range(*start, *end),
        Change::Sizes(sizes) => Ok(list.with_sizes(*sizes)),
    }
}

/// The plan counted embeddings as one vector, and knows nothing of a caller's own steps.
fn check_size(list: &ConditioningList) -> Result<()> {
    let entries = list.entries().iter();
    let rows: usize = entries.map(|entry| entry.conditioning().tokens()).sum();
    if rows <= MOST_WINDOWS * CONTEXT {
        return Ok(());
    }
    let message = format!(
        "a conditioning of {rows} rows; {} are the most",
        MOST_WINDOWS * CONTEXT
    );
    Err(Error::new(ErrorKind::Workflow, message).hint("combine or join fewer conditionings"))
}
