//! A text encoder in a file, as a source of canonical tensors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use super::ahead::make_ahead;
use super::checkpoint::Located;
use super::format::archive::{Archive, Entry};
use super::format::decode::{self, Flaw};
use super::format::filling::Filling;
use super::format::pieces::{Piece, Pieces};
use super::format::stored::Stored;
use super::format::turning;
use super::layout::names::Part;
use super::layout::tower::Recipe;
use super::{EncoderId, TensorInfo, TensorSource, stack};
use crate::error::{Error, ErrorKind, Result};
use crate::mapped::{Mapped, Unchanging};
use crate::transfers::Transfers;

/// What was read, and the shapes of its stacks.
struct Filled<'a> {
    filling: Filling<'a>,
    shapes: Vec<Vec<usize>>,
}

/// Reads tensors one at a time; knows where each is.
#[derive(Clone, Debug)]
pub(super) struct TowerSource {
    archive: Arc<Archive>,
    encoder: EncoderId,
    recipes: BTreeMap<String, Recipe>,
    hidden_act: Option<String>,
}

impl TowerSource {
    pub(super) fn new(located: &Located) -> TowerSource {
        let Located {
            archive,
            tower,
            config,
        } = located;
        TowerSource {
            archive: Arc::clone(archive),
            encoder: tower.found.encoder,
            recipes: tower.recipes.clone(),
            hidden_act: config.as_ref().and_then(|config| config.hidden_act.clone()),
        }
    }

    /// Stacks of tensors below each other, read straight into their places in one room of this
    /// machine's memory. `None` for types, forms and orientations that need more than that.
    fn filled<'a>(
        &self,
        stacks: &[Vec<&'a Recipe>],
        dtype: DType,
        device: &Device,
    ) -> Result<Option<Filled<'a>>> {
        let shapes = stacks.iter().map(|recipes| stacked(recipes));
        let Some(shapes) = shapes.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let recipes: Vec<&Recipe> = stacks.iter().flatten().copied().collect();
        let filling = pieces(&recipes).and_then(|all| Filling::new(all, dtype, device));
        let Some(mut filling) = filling else {
            return Ok(None);
        };
        self.judge_all(&recipes, filling.read(&self.archive)?, dtype)?;
        Ok(Some(Filled { filling, shapes }))
    }

    /// A stack read on its way to the device; `None` where that is not done.
    fn sent(
        &self,
        recipes: &[&Recipe],
        dtype: DType,
        to: (&Device, &dyn Transfers),
    ) -> Result<Option<Tensor>> {
        let (Some(shape), Some(pieces)) = (stacked(recipes), pieces(recipes)) else {
            return Ok(None);
        };
        let Some((tensor, flaws)) = pieces.send(&self.archive, dtype, to)? else {
            return Ok(None);
        };
        self.judge_all(recipes, flaws, dtype)?;
        Ok(Some(tensor.reshape(shape)?))
    }

    /// The first that is flawed is an error.
    fn judge_all(&self, recipes: &[&Recipe], flaws: Vec<Option<Flaw>>, dtype: DType) -> Result<()> {
        for (recipe, flaw) in recipes.iter().zip(flaws) {
            judge(flaw, &recipe.entry, dtype).map_err(|error| self.place(error, recipe))?;
        }
        Ok(())
    }

    /// Stacks one at a time; while one is copied to the device, the next is read.
    fn one_by_one(
        &self,
        stacks: &[Vec<&Recipe>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let read = |recipes: &Vec<_>| {
            let filled = self.filled(std::slice::from_ref(recipes), dtype, device)?;
            Ok((filled, recipes.clone()))
        };
        make_ahead(stacks, read, |(filled, recipes)| {
            let Some(Filled { filling, shapes }) = filled else {
                let build = |recipe| {
                    let built = self.build(recipe, dtype, device);
                    built.map_err(|error| self.place(error, recipe))
                };
                return stack(recipes.into_iter().map(build).collect::<Result<_>>()?);
            };
            stack(filling.finish(&shapes, dtype, device)?)
        })
    }

    fn all_of(&self, stacks: &[Vec<String>]) -> Result<Vec<Vec<&Recipe>>> {
        let recipes = |names: &Vec<String>| names.iter().map(|name| self.recipe(name)).collect();
        stacks.iter().map(recipes).collect()
    }

    fn recipe(&self, name: &str) -> Result<&Recipe> {
        self.recipes.get(name).ok_or_else(|| {
            let message = format!("the text encoder {} has no such tensor", self.encoder);
            let error = Error::new(ErrorKind::MissingTensor, message).at_tensor(name);
            error.at_path(&self.archive.path)
        })
    }

    fn build(&self, recipe: &Recipe, dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = &recipe.entry;
        let bytes = self
            .archive
            .read(entry, third(recipe.part, entry.n_bytes))?;
        check(&bytes, entry, dtype)?;
        let scale = self.scale(recipe)?;
        let tensor = |bytes: &[u8], shape: &[usize]| {
            let scale = scale.as_deref();
            decode::tensor(bytes, entry.stored, shape, scale, dtype, device)
        };
        let shape = recipe.shape.as_slice();
        let &[rows, columns] = shape else {
            return tensor(&bytes, shape);
        };
        if !recipe.transposed {
            return tensor(&bytes, shape);
        }
        match turning::turned(&bytes, entry.stored, rows) {
            Some(turned) => tensor(&turned, shape),
            None => Ok(tensor(&bytes, &[columns, rows])?.t()?.contiguous()?),
        }
    }

    /// Says which tensor of which file is meant.
    fn place(&self, error: Error, recipe: &Recipe) -> Error {
        let path = self.archive.path_of(&recipe.entry);
        error.at_tensor(&recipe.entry.file_name).at_path(path)
    }

    /// The scales of the rows that the recipe takes.
    fn scale(&self, recipe: &Recipe) -> Result<Option<Vec<f32>>> {
        let Some(entry) = &recipe.scale else {
            return Ok(None);
        };
        let mut scales = decode::numbers(&self.archive.read_all(entry)?, entry.stored)?;
        if let Some(bad) = scales
            .iter()
            .find(|scale| !scale.is_finite() || **scale <= 0.0)
        {
            let message = format!("a scale of {bad}; scales are finite and above 0");
            return Err(Error::new(ErrorKind::TensorValue, message).at_tensor(&entry.file_name));
        }
        if scales.len() > 1 {
            let Range { start, end } = third(recipe.part, scales.len());
            scales = scales[start..end].to_vec();
        }
        Ok(Some(scales))
    }
}

impl TensorSource for TowerSource {
    /// In the order in which they lie in the file, so that reading them so is one sweep.
    fn names(&self) -> Vec<String> {
        let place = |recipe: &Recipe| match recipe.part {
            Part::Whole => (recipe.entry.part, recipe.entry.start, 0),
            Part::Third(third) => (recipe.entry.part, recipe.entry.start, third),
        };
        let mut names: Vec<_> = self.recipes.iter().collect();
        names.sort_by_key(|(_, recipe)| place(recipe));
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let recipe = self.recipes.get(name)?;
        Some(TensorInfo {
            shape: recipe.shape.clone(),
            stored: recipe.entry.stored.to_string(),
        })
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let loaded = self.load_stacks(&[vec![name.to_owned()]], dtype, device)?;
        stack(loaded)
    }

    fn load_stacks(
        &self,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let recipes = self.all_of(stacks)?;
        if device.is_cpu()
            && let Some(Filled { filling, shapes }) = self.filled(&recipes, dtype, device)?
        {
            return filling.finish(&shapes, dtype, device);
        }
        self.one_by_one(&recipes, dtype, device)
    }

    fn load_stacks_by(
        &self,
        transfers: &dyn Transfers,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let load = |recipes: &Vec<&Recipe>| match self.sent(recipes, dtype, (device, transfers))? {
            Some(tensor) => Ok(tensor),
            None => stack(self.one_by_one(std::slice::from_ref(recipes), dtype, device)?),
        };
        self.all_of(stacks)?.iter().map(load).collect()
    }

    fn map_stack(&self, names: &[String], word: Unchanging) -> Result<Option<Mapped>> {
        let recipes = names.iter().map(|name| self.recipe(name));
        let recipes = recipes.collect::<Result<Vec<_>>>()?;
        let (Some(shape), Some(pieces)) = (stacked(&recipes), pieces(&recipes)) else {
            return Ok(None);
        };
        let Ok(shape) = <[usize; 2]>::try_from(shape) else {
            return Ok(None);
        };
        let Some((matrix, flaws)) = pieces.map(&self.archive, shape, word) else {
            return Ok(None);
        };
        self.judge_all(&recipes, flaws, matrix.dtype())?;
        Ok(Some(matrix))
    }

    fn load_quantized(&self, name: &str, device: &Device) -> Result<Option<QTensor>> {
        let Some(recipe) = self.recipes.get(name).filter(|recipe| !recipe.transposed) else {
            return Ok(None);
        };
        let Stored::Blocks(blocks) = recipe.entry.stored else {
            return Ok(None);
        };
        let read = || {
            let entry = &recipe.entry;
            let range = third(recipe.part, entry.n_bytes);
            let bytes = self.archive.read(entry, range)?;
            check(&bytes, entry, DType::F32)?;
            blocks.tensor(&bytes, &recipe.shape, device)
        };
        let found = read().map_err(|error| self.place(error, recipe))?;
        Ok(Some(found))
    }

    fn hidden_act(&self) -> Option<&str> {
        self.hidden_act.as_deref()
    }
}

/// All of `0..n`, or one third of it.
fn third<N>(part: Part, n: N) -> Range<N>
where
    N: From<u8> + Copy + std::ops::Mul<Output = N> + std::ops::Div<Output = N>,
{
    match part {
        Part::Whole => N::from(0)..n,
        Part::Third(0) => N::from(0)..n / N::from(3),
        Part::Third(1) => n / N::from(3)..n / N::from(3) * N::from(2),
        Part::Third(_) => n / N::from(3) * N::from(2)..n,
    }
}

/// Where their values are, if they are of one type that is read in place.
fn pieces<'a>(recipes: &[&'a Recipe]) -> Option<Pieces<'a>> {
    let piece = |recipe: &&'a Recipe| Piece {
        entry: &recipe.entry,
        range: third(recipe.part, recipe.entry.n_bytes),
        n_values: recipe.shape.iter().product(),
    };
    Pieces::new(recipes.iter().map(piece).collect())
}

/// The shape of tensors below each other, if they are as the file has them and fit.
fn stacked(recipes: &[&Recipe]) -> Option<Vec<usize>> {
    let (first, rest) = recipes.split_first()?;
    let mut shape = first.shape.clone();
    for recipe in rest {
        let (rows, columns) = recipe.shape.split_first()?;
        if Some(columns) != shape.get(1..) {
            return None;
        }
        shape[0] = shape[0].checked_add(*rows)?;
    }
    let plain = |recipe: &&Recipe| !recipe.transposed && recipe.scale.is_none();
    recipes.iter().all(plain).then_some(shape)
}

/// NaN and infinity in any tensor, stored or once they have the type wanted, and zeros throughout a
/// matrix (a bias may be zero), cannot be trained weights.
fn check(bytes: &[u8], entry: &Entry, dtype: DType) -> Result<()> {
    let flaw = match entry.stored {
        Stored::Blocks(blocks) => decode::flaw_of(&blocks.values(bytes)?),
        stored => decode::flaw_as(bytes, stored, dtype),
    };
    judge(flaw, entry, dtype)
}

fn judge(flaw: Option<Flaw>, entry: &Entry, dtype: DType) -> Result<()> {
    let message = match flaw {
        Some(Flaw::NotFinite(index)) => format!("value {index} is NaN or infinite"),
        Some(Flaw::TooLarge(index)) => return Err(decode::too_large(index, dtype)),
        Some(Flaw::AllZero) if entry.shape.len() == 2 => "all values are zero".to_owned(),
        Some(Flaw::AllZero) | None => return Ok(()),
    };
    let error = Error::new(ErrorKind::TensorValue, message);
    Err(error.hint("the file is damaged, or was converted with an overflow"))
}
