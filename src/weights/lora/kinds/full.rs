//! Whole differences (`LyCORIS`' `full` and `norm`, and what extraction tools write): `diff`,
//! `diff_b`, `w_norm`, `b_norm` are added, `set_weight` replaces whatever the strength is
//! (`comfy/lora.py`). Also the bias that a LoRA may bring.

use candle_core::Tensor;

use super::{Change, Changes, Factor, Parts, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::Entry;
use crate::weights::lora::roles::Role;

#[derive(Debug)]
struct Added {
    values: Factor,
    scale: f64,
}

#[derive(Debug)]
struct Replaced {
    values: Factor,
}

pub(super) fn find(parts: &mut Parts<'_>, changes: &mut Changes) -> Result<()> {
    let weight = parts.weight;
    for role in [Role::Diff, Role::NormWeight] {
        if let Some(entry) = parts.roles.remove(&role) {
            let values = Factor::exactly(entry, weight)?;
            changes.weight.push(Box::new(Added { values, scale: 1.0 }));
        }
    }
    for (role, scale) in [
        (Role::DiffBias, 1.0),
        (Role::NormBias, 1.0),
        (Role::UpBias, parts.scale.last()),
    ] {
        if let Some(entry) = parts.roles.remove(&role) {
            let values = Factor::exactly(entry, bias(parts, entry)?)?;
            changes.bias.push(Box::new(Added { values, scale }));
        }
    }
    if let Some(entry) = parts.roles.remove(&Role::SetWeight) {
        let values = Factor::exactly(entry, weight)?;
        changes.weight.push(Box::new(Replaced { values }));
    }
    Ok(())
}

fn bias<'a>(parts: &Parts<'a>, entry: &Entry) -> Result<&'a [usize]> {
    parts.bias.ok_or_else(|| {
        let message = "it changes a bias, which this module does not have";
        Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name)
    })
}

impl Change for Added {
    fn delta(&self, _: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        Ok((self.values.read(reader)? * (strength * self.scale))?)
    }
}

impl Change for Replaced {
    fn delta(&self, base: &Tensor, _: f64, reader: Reader<'_>) -> Result<Tensor> {
        Ok((self.values.read(reader)? - base)?)
    }

    fn apply(&self, _: &Tensor, _: f64, reader: Reader<'_>) -> Result<Tensor> {
        self.values.read(reader)
    }
}
