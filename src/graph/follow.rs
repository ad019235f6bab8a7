//! One run: follows the steps of a plan, each once, and lets go of what is not needed any more.

use std::collections::HashMap;

use super::cache::Key;
use super::library::Library;
use super::needs::{Clip, LoraUse, Need};
use super::plan::Plan;
use super::recipe::{Change, Custom, Encode, MOST_WINDOWS, MaskStep, Step, Texts};
use super::run::{Loaded, Session, Summary};
use super::workflow::Socket;
use super::{broken, nodes};
use crate::conditioner::{Conditioner, Embeddings};
use crate::conditioning::{Conditioning, ConditioningList, Mask};
use crate::error::{Error, ErrorKind, Result};
use crate::tokens::CONTEXT;
use crate::weights::Family;

/// Prompts that go through the encoders together.
const TOGETHER: usize = 16;

/// What a step made.
#[derive(Clone, Debug)]
enum Made {
    List(ConditioningList),
    Mask(Mask),
}

/// One run of a session.
pub(super) struct Run<'a, L> {
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

impl<'a, L: Library> Run<'a, L> {
    pub(super) fn new(
        session: &'a mut Session<L>,
        plan: &'a Plan,
        embeddings: Option<&'a Embeddings>,
    ) -> Run<'a, L> {
        Run {
            session,
            plan,
            embeddings,
            handles: HashMap::new(),
            made: vec![None; plan.uses().len()],
            left: plan.uses().to_vec(),
            summary: Summary {
                notes: plan.recipes().notes().to_vec(),
                ..Summary::default()
            },
        }
    }

    /// The encoders it used, and what it did.
    pub(super) fn into_parts(self) -> (HashMap<String, Loaded>, Summary) {
        (self.handles, self.summary)
    }

    /// Every step that is needed.
    pub(super) fn all(
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
        let step = &self.plan.recipes().steps()[number];
        if matches!(step, Step::Encode(_)) {
            return match self.made[number] {
                Some(_) => Ok(()),
                None => self.encode_from(number),
            };
        }
        let made = match step {
            Step::Mask(step) => Made::Mask(self.make_mask(step)?),
            _ => Made::List(self.make_list(step)?),
        };
        self.made[number] = Some(made);
        for input in step.inputs() {
            self.used(input);
        }
        Ok(())
    }

    fn make_list(&self, step: &Step) -> Result<ConditioningList> {
        let list = match step {
            Step::Change(of, change) => changed(&self.list(*of)?, change)?,
            Step::Combine(one, two) => self.list(*one)?.combine(&self.list(*two)?),
            Step::Concat(to, from) => self.list(*to)?.concat(&self.list(*from)?)?,
            Step::Average(to, from, share) => {
                self.list(*to)?.average(&self.list(*from)?, *share)?
            }
            Step::Masked {
                of,
                mask,
                strength,
                area,
            } => {
                let mask = self.mask(*mask)?;
                self.list(*of)?.with_mask(&mask, *strength, *area)?
            }
            Step::Custom(custom) => self.make_custom(custom)?,
            Step::Encode(_) | Step::Mask(_) => {
                return Err(broken("a step that makes no list is used as one"));
            }
        };
        check_size(&list)?;
        Ok(list)
    }

    fn make_custom(&self, custom: &Custom) -> Result<ConditioningList> {
        let lists = custom.inputs.iter().map(|input| self.list(*input));
        let lists = lists.collect::<Result<Vec<_>>>()?;
        (custom.function)(&lists.iter().collect::<Vec<_>>())
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
        let Some((_, first)) = plan.encodes_from(number).next() else {
            return Ok(());
        };
        let text = self.handle(&first.clip)?;
        let same = plan.encodes_from(number).filter(|(_, encode)| {
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

    fn keep(&mut self, number: usize, conditioning: Conditioning) {
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
        needs.extend(clip.loras.iter().map(LoraUse::need));
        let name = format!("{:?} {:?}", clip.source, clip.loras);
        let is_new = !self.handles.contains_key(&name);
        let text = self.loaded(&name, &needs, |session| {
            session.library.with_loras(&bare, &clip.loras)
        })?;
        if is_new {
            self.tell_of_loras(clip, &text);
        }
        Ok(text)
    }

    /// What a person should know of LoRAs, with the node that has each.
    fn tell_of_loras(&mut self, clip: &Clip, text: &Conditioner) {
        for (lora, report) in clip.loras.iter().zip(text.lora_reports()) {
            let node = self.plan.recipes().named_by(&lora.need());
            let node = node.unwrap_or_default().to_owned();
            let mut tell = |message: String| self.summary.notes.push((node.clone(), message));
            if report.is_without_effect() {
                tell(format!("{} changes no text encoder", lora.name));
            }
            if let Some(first) = report.unmatched.first() {
                let (count, module) = (report.unmatched.len(), &first.module);
                let reason = &first.reason;
                tell(format!(
                    "{}: {count} text modules have no place, the first is {module}: {reason}",
                    lora.name
                ));
            }
            for note in &report.notes {
                tell(format!("{}: {note}", lora.name));
            }
        }
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
            let text = load(self.session).map_err(|error| self.at_namer(needs.last(), error))?;
            self.summary.loaded += 1;
            Loaded { stamp, text }
        };
        self.handles.insert(name.to_owned(), loaded.clone());
        Ok(loaded.text)
    }

    /// The error at the node that named a file, if one did.
    fn at_namer(&self, need: Option<&Need>, error: Error) -> Error {
        let node = need.and_then(|need| self.plan.recipes().named_by(need));
        match node {
            Some(node) => error.at_node(node),
            None => error,
        }
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
