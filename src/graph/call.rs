//! What a class sees of one node: its inputs, and ways to make values of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::broken;
use super::needs::{Clip, ClipSource, LoraUse};
use super::recipe::{Change, Custom, Encode, MaskRecipe, MaskStep, Recipe, Recipes, Step};
use super::value::{Kind, Value};
use crate::conditioning::{ConditioningList, MaskArea};
use crate::error::Result;

/// LoRAs on one pair of encoders.
const MOST_LORAS: usize = 256;

/// One node that is being evaluated.
#[derive(Debug)]
pub struct Call<'a> {
    pub(super) inputs: HashMap<&'static str, Value>,
    pub(super) recipes: &'a mut Recipes,
}

impl Call<'_> {
    /// Whether an optional input is there.
    pub fn has(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// An input of kind [`Kind::Text`].
    pub fn text(&self, name: &str) -> Result<Arc<str>> {
        match self.input(name, Kind::Text)? {
            Value::Text(text) => Ok(text),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Integer`].
    pub fn integer(&self, name: &str) -> Result<i64> {
        match self.input(name, Kind::Integer)? {
            Value::Integer(number) => Ok(number),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Integer`] that counts pixels: 0 to 16384, as in `ComfyUI`
    /// (`MAX_RESOLUTION`).
    pub fn pixels(&self, name: &str) -> Result<u32> {
        const MOST: u32 = 16384;
        let number = self.integer(name)?;
        let pixels = u32::try_from(number).ok().filter(|pixels| *pixels <= MOST);
        pixels.ok_or_else(|| {
            broken(format!(
                "input `{name}` is {number}; 0 to {MOST} is possible"
            ))
        })
    }

    /// An input of kind [`Kind::Float`]; always finite.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.input(name, Kind::Float)? {
            Value::Float(number) => Ok(number),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Boolean`].
    pub fn boolean(&self, name: &str) -> Result<bool> {
        match self.input(name, Kind::Boolean)? {
            Value::Boolean(yes) => Ok(yes),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Clip`].
    pub fn clip(&self, name: &str) -> Result<Clip> {
        match self.input(name, Kind::Clip)? {
            Value::Clip(clip) => Ok(clip),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Conditioning`].
    pub fn conditioning(&self, name: &str) -> Result<Recipe> {
        match self.input(name, Kind::Conditioning)? {
            Value::Conditioning(recipe) => Ok(recipe),
            other => Err(unfit(name, &other)),
        }
    }

    /// An input of kind [`Kind::Mask`].
    pub fn mask(&self, name: &str) -> Result<MaskRecipe> {
        match self.input(name, Kind::Mask)? {
            Value::Mask(recipe) => Ok(recipe),
            other => Err(unfit(name, &other)),
        }
    }

    fn input(&self, name: &str, kind: Kind) -> Result<Value> {
        let value = self.inputs.get(name);
        let value = value.ok_or_else(|| broken(format!("input `{name}` is missing")))?;
        value.to(kind)
    }

    /// Text encoders to be loaded.
    pub fn load(&mut self, source: ClipSource) -> Clip {
        for need in source.needs() {
            self.recipes.note_need(need);
        }
        Clip::new(source)
    }

    /// The same encoders with a LoRA more. A strength of 0 changes nothing.
    pub fn with_lora(&mut self, mut clip: Clip, name: &str, strength: f64) -> Result<Clip> {
        if strength == 0.0 {
            return Ok(clip);
        }
        if clip.loras.len() >= MOST_LORAS {
            return Err(broken(format!("more than {MOST_LORAS} LoRAs on one CLIP")));
        }
        let lora = LoraUse {
            name: name.to_owned(),
            strength,
        };
        self.recipes.note_need(lora.need());
        clip.loras.push(lora);
        Ok(clip)
    }

    /// The encoding of a prompt.
    pub fn encode(&mut self, encode: Encode) -> Result<Recipe> {
        self.recipes.list(Step::Encode(encode))
    }

    /// A conditioning changed.
    pub fn change(&mut self, of: Recipe, change: Change) -> Result<Recipe> {
        self.recipes.list(Step::Change(of.0, change))
    }

    /// The entries of both ([`ConditioningList::combine`]).
    pub fn combine(&mut self, one: Recipe, two: Recipe) -> Result<Recipe> {
        self.recipes.list(Step::Combine(one.0, two.0))
    }

    /// Rows behind rows ([`ConditioningList::concat`]).
    pub fn concat(&mut self, to: Recipe, from: Recipe) -> Result<Recipe> {
        self.recipes.list(Step::Concat(to.0, from.0))
    }

    /// A mix ([`ConditioningList::average`]).
    pub fn average(&mut self, to: Recipe, from: Recipe, share: f64) -> Result<Recipe> {
        self.recipes.list(Step::Average(to.0, from.0, share))
    }

    /// A conditioning with a mask ([`ConditioningList::with_mask`]).
    pub fn masked(
        &mut self,
        of: Recipe,
        mask: MaskRecipe,
        strength: f64,
        area: MaskArea,
    ) -> Result<Recipe> {
        self.recipes.list(Step::Masked {
            of: of.0,
            mask: mask.0,
            strength,
            area,
        })
    }

    /// A mask of a single value.
    pub fn solid_mask(&mut self, value: f64, width: u32, height: u32) -> Result<MaskRecipe> {
        let solid = MaskStep::Solid {
            value,
            width,
            height,
        };
        self.recipes.mask(solid)
    }

    pub(super) fn mask_step(&mut self, step: MaskStep) -> Result<MaskRecipe> {
        self.recipes.mask(step)
    }

    /// Whatever you make of some conditionings when all of them are there. `key` says what
    /// `function` does: two with the same key and the same inputs are taken for one.
    pub fn custom(
        &mut self,
        key: impl Into<String>,
        inputs: &[Recipe],
        function: impl Fn(&[&ConditioningList]) -> Result<ConditioningList> + Send + Sync + 'static,
    ) -> Result<Recipe> {
        self.recipes.list(Step::Custom(Custom {
            key: key.into(),
            inputs: inputs.iter().map(|recipe| recipe.0).collect(),
            function: Arc::new(function),
        }))
    }
}

fn unfit(name: &str, value: &Value) -> crate::error::Error {
    broken(format!("input `{name}` is {}", value.name()))
}
