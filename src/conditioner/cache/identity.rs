//! ENCODERS → WHAT TELLS THEM APART. In memory a number that each set of `LoRA`s gets; on disk a hash
//! of every tensor, made when it is first asked for.

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use safetensors::View as _;
use sha2::{Digest as _, Sha256};

use crate::encoder::ClipText;
use crate::error::Result;
use crate::weights::{LoraKey, WeightedLora};

use super::key::Digest;

/// Values that are hashed at once.
const STEP: usize = 1 << 20;

/// How many sets of `LoRA`s are remembered.
const SETS: usize = 32;

/// One encoder with its `LoRA`s. It stays the same when the encoder moves to another device.
#[derive(Clone, Debug)]
pub(in crate::conditioner) struct Identity {
    token: u64,
    content: Arc<OnceLock<Option<Digest>>>,
}

impl Identity {
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// A hash of the encoder: dimensions, and all tensors as they are kept. `None` if they cannot be
    /// read back from their device. Nobody waits for another one's: reading a matrix may use rayon, whose
    /// thread would be handed a task that asks again.
    pub(super) fn content(&self, clip: &ClipText) -> Option<Digest> {
        if let Some(known) = self.content.get() {
            return *known;
        }
        let content = content(clip).ok();
        *self.content.get_or_init(|| content)
    }
}

fn content(clip: &ClipText) -> Result<Digest> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}\n", clip.config()));
    let _same = clip.with_changes(&mut |name, tensor| {
        let (dtype, shape) = (tensor.dtype(), tensor.dims());
        hash.update(format!("{name} {dtype:?} {shape:?}\n"));
        add(&mut hash, tensor)?;
        Ok(None)
    })?;
    Ok(hash.finalize().into())
}

/// The values, a few at a time: no second copy of a large tensor.
fn add(hash: &mut Sha256, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?;
    let n_values = values.elem_count();
    for start in (0..n_values).step_by(STEP) {
        let part = values.narrow(0, start, STEP.min(n_values - start))?;
        hash.update(part.to_device(&Device::Cpu)?.data());
    }
    Ok(())
}

/// The sets of `LoRA`s that were put on one load's encoders, newest last.
#[derive(Debug, Default)]
pub(super) struct Names {
    sets: Vec<(Vec<LoraKey>, Vec<Identity>)>,
    next: u64,
}

impl Names {
    pub(super) fn of(&mut self, worn: &[WeightedLora], n: usize) -> Vec<Identity> {
        let keys: Vec<LoraKey> = worn.iter().map(WeightedLora::key).collect();
        let known = self.sets.iter().position(|(other, _)| *other == keys);
        let set = match known {
            Some(place) => self.sets.remove(place),
            None => (keys, (0..n).map(|_| self.fresh()).collect()),
        };
        let identities = set.1.clone();
        self.sets.push(set);
        if self.sets.len() > SETS {
            self.sets.remove(0);
        }
        identities
    }

    fn fresh(&mut self) -> Identity {
        self.next += 1;
        Identity {
            token: self.next,
            content: Arc::default(),
        }
    }
}
