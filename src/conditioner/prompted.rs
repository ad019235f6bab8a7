//! PROMPT → CONDITIONER. The `LoRA`s that a prompt names itself (`<lora:film:0.8>`, `withLora(film)`),
//! found in a request's folder and put on for that request alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::profile::TakenOut;
use crate::prompt::compel;
use crate::prompt::networks::{self, ExtraNetwork};
use crate::prompt::{Dialect, Note, NoteKind};
use crate::weights::{LoraFolder, LoraReport, WeightedLora};

use super::plan::Tower;
use super::prepare::Prepared;
use super::{Conditioner, Embeddings, Inner, Request, Seat, compose};

/// A LoRA that a prompt asks for.
struct Named {
    /// How it was asked for.
    written: String,
    name: String,
    /// `None` where what is written is no number, at which the tool fails.
    strength: Option<f64>,
    note_at: std::ops::Range<usize>,
}

/// The encoders of the last prompt that named some; kept because the next one mostly names the same.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<(String, Worn)>>);

/// Encoders with a prompt's `LoRA`s, and what became of each.
#[derive(Clone, Debug)]
struct Worn {
    seat: Arc<Seat>,
    reports: Vec<LoraReport>,
}

/// A conditioner for prompts that name the same `LoRA`s, and the embeddings that those bring.
pub(super) struct Prompted {
    text: Conditioner,
    brought: Embeddings,
}

/// Requests that name the same.
struct Group {
    key: String,
    named: Vec<WeightedLora>,
    places: Vec<usize>,
}

impl Conditioner {
    /// This conditioner with the `LoRA`s that a request's prompt names, if the request has a folder
    /// of them ([`Request::loras`]); behind those that it has already. `encode` and its like do this
    /// by themselves; here their reports can be read. A negative prompt names none.
    pub fn for_prompt(&self, request: &Request<'_>) -> Result<Conditioner> {
        Ok(self.prompted(request)?.text)
    }

    /// The same with the embeddings that come along.
    pub(super) fn prompted(&self, request: &Request<'_>) -> Result<Prompted> {
        let named = found(request)?;
        self.with_named(&key(&named), &named)
    }

    fn with_named(&self, key: &str, named: &[WeightedLora]) -> Result<Prompted> {
        if named.is_empty() {
            return Ok(Prompted {
                text: self.clone(),
                brought: Embeddings::default(),
            });
        }
        let mut brought = Embeddings::default();
        for lora in named {
            brought = brought.with_lora(lora.lora())?;
        }
        let text = self.wearing(key, named)?;
        Ok(Prompted { text, brought })
    }

    /// These `LoRA`s on top of the handle's own; taken from the last call where they are the same.
    fn wearing(&self, key: &str, named: &[WeightedLora]) -> Result<Conditioner> {
        let all = [&self.inner.worn, named].concat();
        let worn = self.inner.last.get_or_make(key, || {
            let Conditioner { inner, .. } = self.with_loras(&all)?;
            Ok(Worn {
                seat: Arc::clone(&inner.seat),
                reports: inner.loras.clone(),
            })
        })?;
        let inner = self.inner.with(all, worn.seat, worn.reports);
        Ok(self.beside(Arc::new(inner)))
    }

    /// Encodes requests, those that name the same `LoRA`s together. One group's encoders are gone before the
    /// next one's are made.
    pub(super) fn encode_grouped(&self, requests: &[Request<'_>]) -> Result<Vec<Conditioning>> {
        if requests
            .iter()
            .all(|request| request.lora_folder().is_none())
        {
            return self.encode_worn(requests);
        }
        let mut all: Vec<Option<Conditioning>> = vec![None; requests.len()];
        for Group { key, named, places } in self.groups(requests)? {
            let of_group = places.iter().map(|place| requests[*place].clone());
            let of_group: Vec<Request<'_>> = of_group.collect();
            let prompted = self.with_named(&key, &named);
            let prompted = prompted.map_err(|error| at_one(error, places[0], requests.len()))?;
            let encoded = prompted.dressed(&of_group, Conditioner::encode_worn)?;
            for (place, conditioning) in places.iter().zip(encoded) {
                all[*place] = Some(conditioning);
            }
        }
        let all = all
            .into_iter()
            .map(|one| one.ok_or_else(compose::incomplete));
        all.collect()
    }

    /// The places of the requests that name the same `LoRA`s. Where there are several groups, what can be known to be
    /// wrong with one is told before another is encoded.
    fn groups(&self, requests: &[Request<'_>]) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            let at_this = |error| at_one(error, place, requests.len());
            let named = found(request).map_err(at_this)?;
            let key = key(&named);
            if let Some(group) = groups.iter_mut().find(|group| group.key == key) {
                group.places.push(place);
                continue;
            }
            let places = vec![place];
            groups.push(Group { key, named, places });
        }
        if groups.len() > 1 {
            for Group { named, places, .. } in groups.iter().filter(|group| !group.named.is_empty())
            {
                let reports = self.report_loras(named);
                reports.map_err(|error| at_one(error, places[0], requests.len()))?;
            }
        }
        Ok(groups)
    }
}

/// Equal for lists of the same.
fn key(named: &[WeightedLora]) -> String {
    named.iter().map(WeightedLora::identity).collect()
}

/// Says which of several requests was refused.
pub(super) fn at_one(error: Error, place: usize, requests: usize) -> Error {
    if requests < 2 {
        return error;
    }
    error.at_request(place)
}

impl Last {
    /// What is kept by this key, else what is made, which is kept then; what was kept goes before that. The lock
    /// is not held meanwhile: whoever makes it may be handed another task of rayon's that wants it, too, and makes
    /// it once more.
    fn get_or_make(&self, key: &str, make: impl FnOnce() -> Result<Worn>) -> Result<Worn> {
        if let Some(worn) = self.get(key) {
            return Ok(worn);
        }
        let other = self.locked().take();
        drop(other);
        let worn = make()?;
        *self.locked() = Some((key.to_owned(), worn.clone()));
        Ok(worn)
    }

    fn get(&self, key: &str) -> Option<Worn> {
        let kept = self.locked();
        let (_, worn) = kept.as_ref().filter(|(other, _)| other == key)?;
        Some(worn.clone())
    }

    fn locked(&self) -> MutexGuard<'_, Option<(String, Worn)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prompted {
    /// Calls `go` with the conditioner and with requests of which each may name its own embeddings and those
    /// that come along. A name that is taken already keeps its embedding.
    pub(super) fn dressed<T>(
        &self,
        requests: &[Request<'_>],
        go: impl FnOnce(&Conditioner, &[Request<'_>]) -> Result<T>,
    ) -> Result<T> {
        if self.brought.is_empty() {
            return go(&self.text, requests);
        }
        let towers = self.text.placed().towers();
        let dressed = |request: &Request<'_>| {
            let own = request.embeddings_given().cloned().unwrap_or_default();
            own.and(&self.brought, &towers, request.rules().embedding_files)
        };
        let sets: Vec<Embeddings> = requests.iter().map(dressed).collect();
        let dressed = requests.iter().zip(&sets);
        let dressed = dressed.map(|(request, set)| request.clone().embeddings(set));
        go(&self.text, &dressed.collect::<Vec<_>>())
    }
}

impl Inner {
    /// The same settings with other encoders, made from the same loaded ones.
    pub(super) fn with(
        self: &Arc<Inner>,
        worn: Vec<WeightedLora>,
        seat: Arc<Seat>,
        reports: Vec<LoraReport>,
    ) -> Inner {
        let base = self.base.as_ref().unwrap_or(self);
        let identities: String = worn.iter().map(WeightedLora::identity).collect();
        Inner {
            seat,
            home: Arc::clone(&base.home),
            report: base.report.clone(),
            fingerprint: format!("{}{identities}", base.fingerprint),
            loras: reports,
            worn,
            base: Some(Arc::clone(base)),
            last: Last::default(),
            family: base.family,
            dtype: base.dtype,
            output: base.output,
        }
    }
}

/// The `LoRA`s that a request's prompt names and its folder has.
fn found(request: &Request<'_>) -> Result<Vec<WeightedLora>> {
    let Some(folder) = request.lora_folder().filter(|_| !request.is_negative()) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for Named { name, strength, .. } in named(request) {
        let Some(strength) = strength else { continue };
        all.extend(folder.get(&name)?.map(|lora| lora.at(strength)));
    }
    Ok(all)
}

/// A request's embeddings with those that come with its prompt; `None` where none come.
pub(super) fn brought(request: &Request<'_>, towers: &[Tower]) -> Option<Embeddings> {
    let mut brought = Embeddings::default();
    for lora in found(request).unwrap_or_default() {
        // What is wrong with a file is told by `encode`.
        brought = brought.clone().with_lora(lora.lora()).unwrap_or(brought);
    }
    let own = request.embeddings_given().cloned().unwrap_or_default();
    (!brought.is_empty()).then(|| own.and(&brought, towers, request.rules().embedding_files))
}

impl Request<'_> {
    /// The `LoRA`s that the prompt names and the request's folder has ([`loras`](Self::loras)), in
    /// the prompt's order; none for a negative prompt. An error if a file of the folder cannot be
    /// used.
    pub fn named_loras(&self) -> Result<Vec<WeightedLora>> {
        found(self)
    }

    /// What there is to say of `<lora:…>`, `<hypernet:…>` and `withLora(…)` in the first text, with
    /// places in it. These are among the notes of [`Conditioner::encode`] and
    /// [`Conditioner::readings`]; the texts of a schedule are told none, since such words are taken
    /// out before.
    ///
    /// ```
    /// use sd_conditioner::{Profile, Request};
    /// let request = Request::new("a <lora:film:0.8> cat").profile(Profile::A1111);
    /// assert_eq!(request.network_notes()[0].span, 2..17);
    /// ```
    pub fn network_notes(&self) -> Vec<Note> {
        let prepared = Prepared::of(&self.text_for(0), self.rules(), self.is_negative());
        let mut all = [prepared.notes, notes(self)].concat();
        all.sort_by_key(|note| note.span.start);
        all
    }
}

/// What is written in the first text.
fn named(request: &Request<'_>) -> Vec<Named> {
    let (text, rules) = (request.text_for(0), request.rules());
    if rules.taken_out != TakenOut::Nothing {
        let prepared = Prepared::of(&text, rules, false);
        return prepared.networks.iter().filter_map(of_network).collect();
    }
    if rules.dialect != Dialect::Compel {
        return Vec::new();
    }
    let of_compel = |lora: compel::Lora| Named {
        written: "withLora(…)".to_owned(),
        name: lora.name,
        strength: Some(lora.weight),
        note_at: lora.span,
    };
    compel::parse(&text)
        .0
        .loras
        .into_iter()
        .map(of_compel)
        .collect()
}

/// `<lora:name:strength>`, `<lora:name:te=0.5>`; the second number is the U-Net's (`activate` in
/// AUTOMATIC1111's `extensions-builtin/Lora/extra_networks_lora.py`). `lyco` is another word for it.
fn of_network(network: &ExtraNetwork) -> Option<Named> {
    if !matches!(network.kind.as_str(), "lora" | "lyco") {
        return None;
    }
    let mut positional = network.positional();
    let name = positional.next()?.to_owned();
    let written = network.named("te").or_else(|| positional.next());
    Some(Named {
        written: format!("<{}:…>", network.kind),
        name,
        strength: written.map_or(Some(1.0), networks::number),
        note_at: network.span.clone(),
    })
}

/// What a person should know of the `LoRA`s that a prompt names.
pub(super) fn notes(request: &Request<'_>) -> Vec<Note> {
    let each = named(request).into_iter().filter_map(|named| {
        let (kind, message) = wrong(&named, request.lora_folder())?;
        Some(Note {
            kind,
            span: named.note_at,
            message,
        })
    });
    if request.is_negative() {
        return Vec::new();
    }
    each.collect()
}

fn wrong(named: &Named, folder: Option<&LoraFolder>) -> Option<(NoteKind, String)> {
    let name = &named.name;
    let Some(folder) = folder else {
        let written = &named.written;
        let message =
            format!("{written} is taken out of the text; load it into the model yourself");
        return Some((NoteKind::Quirk, message));
    };
    if named.strength.is_none() {
        let message = format!("the strength of the LoRA {name:?} is no number; it is left out");
        return Some((NoteKind::ReferenceError, message));
    }
    match folder.get(name) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let message = format!("no LoRA {name:?} in {}", folder.path().display());
            Some((NoteKind::UnknownLora, message))
        }
        Err(error) => Some((NoteKind::UnknownLora, error.to_string())),
    }
}

#[cfg(test)]
mod tests;
