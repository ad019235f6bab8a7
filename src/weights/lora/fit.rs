//! LORA + ENCODERS → CHANGES. Every module is matched and every shape is checked here, before
//! anything of it is read.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::factor::Reader;
use super::kinds::{Change, Changes, Parts};
use super::names::{Paths, Slot, Spelt, Target, spelt};
use super::roles::Role;
use super::scale::Scale;
use super::{LoraReport, Roles, WeightedLora};
use crate::error::{Error, ErrorKind, Result, named};
use crate::weights::{EncoderId, Family};

/// The encoders that `LoRA`s are to change.
#[derive(Debug)]
pub(crate) struct Base {
    family: Family,
    towers: Vec<Tower>,
}

/// One encoder: the shapes of its canonical tensors, and how its modules may be called.
#[derive(Debug)]
struct Tower {
    encoder: EncoderId,
    shapes: BTreeMap<String, Vec<usize>>,
    paths: Paths,
}

/// A LoRA whose modules have found their places.
#[derive(Debug)]
pub(crate) struct Fitted {
    lora: WeightedLora,
    strengths: BTreeMap<EncoderId, f64>,
    changes: BTreeMap<(EncoderId, String), Vec<Box<dyn Change>>>,
    report: LoraReport,
}

impl Base {
    /// Encoders of a family, in its order, with shapes by canonical name.
    pub(crate) fn new(
        family: Family,
        encoders: impl Iterator<Item = (EncoderId, BTreeMap<String, Vec<usize>>)>,
    ) -> Base {
        let tower = |(encoder, shapes): (EncoderId, BTreeMap<String, Vec<usize>>)| Tower {
            encoder,
            paths: Paths::of(shapes.keys().map(String::as_str)),
            shapes,
        };
        Base {
            family,
            towers: encoders.map(tower).collect(),
        }
    }

    /// The encoder and the tensors of a module.
    fn find<'a>(&'a self, spelt: &Spelt<'_>, roles: &Roles) -> Result<Place<'a>, String> {
        let encoders = spelt.slot.encoders(self.family);
        if encoders.is_empty() {
            let (prefix, family) = (spelt.prefix, self.family);
            return Err(format!("`{prefix}` names no encoder of {family}"));
        }
        let towers = self
            .towers
            .iter()
            .filter(|tower| encoders.contains(&tower.encoder));
        let mut why = None;
        let mut found = Vec::new();
        for tower in towers {
            match tower.paths.find(spelt.path, spelt.scheme.separator) {
                Some(target) => found.push(Place { tower, target }),
                None => why = Some(tower.paths.why_not(spelt.path, spelt.scheme.separator)),
            }
        }
        if spelt.slot == Slot::Unsaid && found.len() > 1 {
            found.retain(|place| place.takes(roles));
        }
        let why = || why.unwrap_or_else(|| "it fits to none of the loaded encoders".to_owned());
        found.into_iter().next().ok_or_else(why)
    }
}

/// Where a module goes.
#[derive(Clone, Copy)]
struct Place<'a> {
    tower: &'a Tower,
    target: &'a Target,
}

impl<'a> Place<'a> {
    fn weight(&self) -> &'a [usize] {
        &self.tower.shapes[&self.target.weight]
    }

    fn bias(&self) -> Option<&'a [usize]> {
        let bias = self.target.bias.as_ref()?;
        Some(self.tower.shapes[bias].as_slice())
    }

    /// True if the module's matrices read what the encoder's does.
    fn takes(&self, roles: &Roles) -> bool {
        let read = read_by(roles);
        read.is_some() && read.as_ref() == self.weight().get(1)
    }
}

/// Columns of what a module's matrices make.
fn read_by(roles: &Roles) -> Option<usize> {
    let columns = |role: Role| roles.get(&role)?.shape.get(1).copied();
    let plain = columns(Role::Down).or_else(|| columns(Role::HadaW1B));
    plain.or_else(|| {
        let first = columns(Role::LokrW1).or_else(|| columns(Role::LokrW1B))?;
        let second = columns(Role::LokrW2).or_else(|| columns(Role::LokrW2B))?;
        first.checked_mul(second)
    })
}

impl Fitted {
    /// Matches all modules. What is wrong with a module that has a place is an error; a module
    /// without a place is reported.
    pub(crate) fn new(lora: &WeightedLora, base: &Base) -> Result<Fitted> {
        let path = lora.lora.path();
        Fitted::fit(lora, base).map_err(|error| error.at_path(path))
    }

    fn fit(lora: &WeightedLora, base: &Base) -> Result<Fitted> {
        let mut fitted = Fitted {
            lora: lora.clone(),
            strengths: strengths(lora, base.family)?,
            changes: BTreeMap::new(),
            report: lora.lora.report(),
        };
        fitted.report.strengths = fitted.strengths.clone();
        fitted.expect_family(base)?;
        let mut users: BTreeMap<(EncoderId, &str), &str> = BTreeMap::new();
        for (module, roles) in &lora.lora.opened.modules {
            let Some(spelt) = spelt(module) else { continue };
            match base.find(&spelt, roles) {
                Ok(place) => {
                    let at = (place.tower.encoder, place.target.weight.as_str());
                    if let Some(other) = users.insert(at, module) {
                        return Err(twice(other, module));
                    }
                    fitted.add(module, &spelt, roles, place)?;
                }
                Err(reason) => fitted.report.leave(module, reason),
            }
        }
        Ok(fitted)
    }

    fn add(
        &mut self,
        module: &str,
        spelt: &Spelt<'_>,
        roles: &Roles,
        place: Place<'_>,
    ) -> Result<()> {
        if roles.keys().all(|role| *role == Role::Weight) {
            let reason = "a whole weight, not a change of one";
            self.report.leave(module, reason);
            return Ok(());
        }
        let changes = self.changes_of(spelt, roles, place);
        let changes = changes.map_err(|error| place.explain(error))?;
        let encoder = place.tower.encoder;
        *self.report.kinds.entry(changes.kind).or_default() += 1;
        *self.report.applied.entry(encoder).or_default() += 1;
        let Target { weight, bias } = place.target.clone();
        self.change(encoder, weight, changes.weight);
        if let Some(bias) = bias {
            self.change(encoder, bias, changes.bias);
        }
        Ok(())
    }

    /// Takes in what a tensor is changed by, after what it is changed by already.
    fn change(&mut self, encoder: EncoderId, name: String, changes: Vec<Box<dyn Change>>) {
        let before = self.changes.entry((encoder, name)).or_default();
        before.extend(changes);
    }

    fn changes_of(
        &mut self,
        spelt: &Spelt<'_>,
        roles: &Roles,
        place: Place<'_>,
    ) -> Result<Changes> {
        let opened = &self.lora.lora.opened;
        let mut roles = roles.iter().map(|(role, entry)| (*role, entry)).collect();
        let adapter = opened.adapters.of(spelt);
        let parts = Parts {
            scale: Scale::take(&mut roles, &opened.archive, adapter)?,
            roles,
            archive: &opened.archive,
            weight: place.weight(),
            bias: place.bias(),
        };
        let (changes, scale) = parts.changes()?;
        if scale.is_zero() {
            let path = spelt.path;
            self.report
                .notes
                .push(format!("`{path}` has the alpha 0, so it has no effect"));
        }
        Ok(changes)
    }

    /// Refuses a LoRA of another family.
    fn expect_family(&mut self, base: &Base) -> Result<()> {
        let origin = &self.lora.lora.opened.origin;
        if origin.families.contains(&base.family) {
            return Ok(());
        }
        let (was, because, family) = (origin.describe(), &origin.because, base.family);
        let message = format!("it was made for {was}, told by {because}, and this is {family}");
        if self.lora.any_family || self.lora.lora.opened.modules.is_empty() {
            self.report.notes.push(message);
            return Ok(());
        }
        let error = Error::new(ErrorKind::Mismatch, message);
        Err(error.hint("load a checkpoint of its family; in Rust, `WeightedLora::for_any_family` puts it on all the same"))
    }

    /// What became of the file's modules.
    pub(crate) fn report(&self) -> &LoraReport {
        &self.report
    }

    /// True if a tensor is changed.
    pub(crate) fn touches(&self, encoder: EncoderId, name: &str) -> bool {
        let changes = self.changes.get(&(encoder, name.to_owned()));
        changes.is_some_and(|changes| !changes.is_empty()) && self.strengths[&encoder] != 0.0
    }

    /// The changed tensor; `base` is f32.
    pub(crate) fn apply(&self, encoder: EncoderId, name: &str, base: Tensor) -> Result<Tensor> {
        if !self.touches(encoder, name) {
            return Ok(base);
        }
        let (opened, strength) = (&self.lora.lora.opened, self.strengths[&encoder]);
        let device = base.device().clone();
        let reader = Reader {
            archive: &opened.archive,
            device: &device,
        };
        let mut changed = base;
        for change in &self.changes[&(encoder, name.to_owned())] {
            let next = change.apply(&changed, strength, reader);
            changed = next.map_err(|error| error.at_path(&opened.path))?;
        }
        Ok(changed)
    }
}

/// Changes one tensor by all `LoRA`s in their order, in f32, and rounds once. `None` if none
/// touches it.
pub(crate) fn changed(
    loras: &[Fitted],
    encoder: EncoderId,
    name: &str,
    base: &dyn Fn() -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    if !loras.iter().any(|lora| lora.touches(encoder, name)) {
        return Ok(None);
    }
    let base = base()?;
    let mut tensor = base.to_dtype(DType::F32)?;
    for lora in loras {
        tensor = lora.apply(encoder, name, tensor)?;
    }
    let tensor = tensor.to_dtype(base.dtype())?;
    if is_finite(&tensor)? {
        return Ok(Some(tensor));
    }
    let error = out_of_range(encoder, name, base.dtype());
    let mut users = loras.iter().filter(|lora| lora.touches(encoder, name));
    Err(match users.next_back() {
        Some(last) => error.at_path(last.lora.lora.path()),
        None => error,
    })
}

fn out_of_range(encoder: EncoderId, name: &str, kept: DType) -> Error {
    let message = format!("the changed weights of {encoder} leave the range of {kept:?}");
    let error = Error::new(ErrorKind::Lora, message).at_tensor(name);
    error.hint("the strength is too large, or the LoRA is damaged")
}

/// 0 times anything finite is 0; NaN and infinity become NaN.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    let zeros = (tensor.to_dtype(DType::F32)? * 0.0)?;
    Ok(!zeros.sum_all()?.to_scalar::<f32>()?.is_nan())
}

/// The strength of every encoder: the first, and where there is a second one its own.
fn strengths(lora: &WeightedLora, family: Family) -> Result<BTreeMap<EncoderId, f64>> {
    let each = [lora.strength, lora.strength_2.unwrap_or(lora.strength)];
    if let Some(bad) = each.iter().find(|strength| !strength.is_finite()) {
        let message = format!("the strength {bad} is no finite number");
        return Err(Error::new(ErrorKind::Request, message));
    }
    Ok(family.encoders().iter().copied().zip(each).collect())
}

fn twice(one: &str, other: &str) -> Error {
    let message = format!(
        "`{}` and `{}` are the same module",
        named(one),
        named(other)
    );
    Error::new(ErrorKind::Lora, message)
}

impl Place<'_> {
    /// Adds to an error of shapes which encoder it was held against.
    fn explain(&self, error: Error) -> Error {
        let (encoder, weight) = (self.tower.encoder, self.weight());
        error.hint(format!(
            "held against `{}` of {encoder}, which is {weight:?}",
            self.target.weight
        ))
    }
}
