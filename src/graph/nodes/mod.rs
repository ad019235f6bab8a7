//! One function for each class. What a class reads, in which order the editor keeps its widgets and
//! what it does stand together.

mod adv;
mod change;
mod encode;
mod loaders;
pub(super) mod mask;
mod samplers;
mod text;

use super::call::Call;
use super::class::{Inlet, NodeClass};
use super::value::Value;
use crate::error::Result;

/// A class of this crate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Builtin {
    name: &'static str,
    inlets: &'static [Inlet],
    widgets: &'static [&'static str],
    prompts: &'static [&'static str],
    sinks: &'static [&'static str],
    evaluate: fn(&mut Call<'_>) -> Result<Vec<Value>>,
}

impl Builtin {
    const fn new(
        name: &'static str,
        inlets: &'static [Inlet],
        widgets: &'static [&'static str],
        evaluate: fn(&mut Call<'_>) -> Result<Vec<Value>>,
    ) -> Builtin {
        Builtin {
            name,
            inlets,
            widgets,
            prompts: &[],
            sinks: &[],
            evaluate,
        }
    }

    const fn with_prompts(self, prompts: &'static [&'static str]) -> Builtin {
        Builtin { prompts, ..self }
    }
}

impl NodeClass for Builtin {
    fn name(&self) -> &str {
        self.name
    }

    fn inlets(&self) -> &[Inlet] {
        self.inlets
    }

    fn widgets(&self) -> &[&str] {
        self.widgets
    }

    fn prompts(&self) -> &[&str] {
        self.prompts
    }

    fn sinks(&self) -> &[&str] {
        self.sinks
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Vec<Value>> {
        (self.evaluate)(call)
    }
}

/// All classes of this crate.
pub(super) fn all() -> impl Iterator<Item = Builtin> {
    let groups: [&[Builtin]; 7] = [
        loaders::CLASSES,
        encode::CLASSES,
        adv::CLASSES,
        change::CLASSES,
        mask::CLASSES,
        text::CLASSES,
        samplers::CLASSES,
    ];
    groups.into_iter().flatten().copied()
}
