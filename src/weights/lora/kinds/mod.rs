//! TENSORS OF A MODULE → CHANGES. One file for each kind of change; all in f32.

mod dora;
mod embedding;
mod full;
mod glora;
mod ia3;
mod loha;
mod lokr;
mod low_rank;
mod oft;

use std::collections::BTreeMap;
use std::fmt;

use candle_core::Tensor;

use super::factor::{Factor, Reader};
use super::roles::Role;
use super::scale::Scale;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::format::archive::{Archive, Entry};

/// What a module of a LoRA file does to one tensor of an encoder.
pub(super) trait Change: fmt::Debug + Send + Sync {
    /// What is to be added to `base` (f32, as it stands after the changes before), times `strength`.
    fn delta(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor>;

    /// The changed tensor.
    fn apply(&self, base: &Tensor, strength: f64, reader: Reader<'_>) -> Result<Tensor> {
        Ok((base + self.delta(base, strength, reader)?)?)
    }
}

/// The changes of one module, and what its kind is called.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) kind: &'static str,
    pub(super) weight: Vec<Box<dyn Change>>,
    pub(super) bias: Vec<Box<dyn Change>>,
}

/// The tensors of one module while its kind is found out. What is taken is gone, so that what is
/// left is what nobody understood.
pub(super) struct Parts<'a> {
    pub(super) roles: BTreeMap<Role, &'a Entry>,
    pub(super) archive: &'a Archive,
    pub(super) scale: Scale,
    /// Shape of the module's weight.
    pub(super) weight: &'a [usize],
    /// Shape of its bias, where it has one.
    pub(super) bias: Option<&'a [usize]>,
}

type Kind = fn(&mut Parts<'_>) -> Result<Option<Box<dyn Change>>>;

/// The kinds that change a matrix, and what they are called.
const KINDS: [(&str, Kind); 7] = [
    ("LoRA", low_rank::find),
    ("LoHa", loha::find),
    ("LoKr", lokr::find),
    ("GLoRA", glora::find),
    ("OFT", oft::find),
    ("(IA)³", ia3::find),
    ("LoRA of the embedding", embedding::find),
];

impl Parts<'_> {
    /// All changes that the tensors mean; an error if some are left, or too few.
    /// Gives the scale back, which then knows the factor.
    pub(super) fn changes(mut self) -> Result<(Changes, Scale)> {
        self.refuse_unsupported()?;
        let mut changes = Changes {
            kind: "full difference",
            weight: Vec::new(),
            bias: Vec::new(),
        };
        for (name, find) in KINDS {
            if let Some(change) = find(&mut self)? {
                changes.kind = name;
                changes.weight.push(change);
            }
        }
        if let Some(magnitude) = self.roles.remove(&Role::Magnitude) {
            changes.kind = "DoRA";
            dora::wrap(magnitude, &mut changes.weight, self.weight)?;
        }
        full::find(&mut self, &mut changes)?;
        match self.roles.values().next() {
            Some(left) => Err(lonely(left)),
            None if changes.weight.is_empty() && changes.bias.is_empty() => Err(nothing()),
            None => Ok((changes, self.scale)),
        }
    }

    /// The matrix of a role, if it is there.
    fn take(&mut self, role: Role) -> Result<Option<Factor>> {
        self.roles.remove(&role).map(Factor::matrix).transpose()
    }

    /// Both of two matrices or none.
    fn pair(&mut self, first: Role, second: Role) -> Result<Option<(Factor, Factor)>> {
        match (self.take(first)?, self.take(second)?) {
            (Some(first), Some(second)) => Ok(Some((first, second))),
            (None, None) => Ok(None),
            (Some(one), None) | (None, Some(one)) => Err(without_partner(one.name())),
        }
    }

    /// An error unless a product has the shape of the module's weight.
    fn expect_weight(&self, shape: [usize; 2], name: &str) -> Result<()> {
        if shape == *self.weight {
            return Ok(());
        }
        let message = format!(
            "it changes a matrix of {shape:?}, the encoder's is {:?}",
            self.weight
        );
        Err(Error::new(ErrorKind::Lora, message).at_tensor(name))
    }

    /// Kinds that are known and not done.
    fn refuse_unsupported(&self) -> Result<()> {
        let named = |role: Role| match role {
            Role::Reshape => Some("a changed shape (`reshape_weight`)"),
            Role::SparseBias => Some("a sparse bias (`bias_indices`)"),
            Role::Mid | Role::HadaT | Role::LokrT2 => {
                Some("Tucker's form, which is for convolutions")
            }
            _ => None,
        };
        let found = self
            .roles
            .iter()
            .find_map(|(role, entry)| Some((named(*role)?, entry)));
        match found {
            Some((what, entry)) => Err(unsupported(what, &entry.file_name)),
            None => Ok(()),
        }
    }
}

/// An error that names a kind.
fn unsupported(what: &str, tensor: &str) -> Error {
    let message = format!("{what} is not supported on text encoders");
    let error = Error::new(ErrorKind::Unsupported, message).at_tensor(tensor);
    error.hint("convert it to a plain LoRA")
}

fn without_partner(tensor: &str) -> Error {
    let message = "its other half is missing: down and up, A and B, w1 and w2 come in pairs";
    Error::new(ErrorKind::Lora, message).at_tensor(tensor)
}

fn lonely(entry: &Entry) -> Error {
    let message = "the tensors that belong to it are missing";
    Error::new(ErrorKind::Lora, message).at_tensor(&entry.file_name)
}

fn nothing() -> Error {
    Error::new(ErrorKind::Lora, "the module has nothing but a scale")
}
