//! FILES → CANONICAL TENSORS. Any checkpoint layout goes in; text-encoder tensors under one set of
//! names come out, and a report of what was left.

mod ahead;
mod checkpoint;
mod combine;
mod embedding;
mod format;
mod layout;
mod listing;
mod lora;
mod opening;
mod source;
mod summary;
mod synthetic;
mod writing;

pub use checkpoint::{Checkpoint, Container};
pub use combine::{Encoders, combine};
pub use embedding::{Embedding, EmbeddingFolder};
pub(crate) use format::blocks::moved as moved_quantized;
pub(crate) use format::file::{open as open_file, read_whole};
pub(crate) use format::writer::{
    Outline, bytes as write_whole, to_bytes as tensors_to_bytes, write as write_tensors,
};
pub use layout::Layout;
pub(crate) use lora::{
    Base as LoraBase, Fitted as FittedLora, LoraKey, changed as changed_by_loras,
};
pub use lora::{Lora, LoraFolder, LoraReport, LoraSummary, Unmatched, WeightedLora};
pub use summary::{EncoderSummary, Inspected, Summary};
pub use synthetic::{Synthetic, SyntheticSize};
pub use writing::{Arrangement, Conversion, ConversionReport, WriteProgress};

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result, unknown_name};
pub use crate::mapped::{Mapped, Unchanging};
pub use crate::transfers::{Fill, Take, Transfers};

/// One of the text encoders that Stable Diffusion uses.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EncoderId {
    /// OpenAI CLIP ViT-L/14: SD 1.x, SDXL's first encoder.
    ClipL,
    /// `OpenCLIP` ViT-H/14: SD 2.x.
    OpenClipH,
    /// `OpenCLIP` ViT-bigG/14: SDXL's second encoder, the refiner's only one.
    OpenClipG,
}

impl EncoderId {
    /// All three.
    pub const ALL: [EncoderId; 3] = [EncoderId::ClipL, EncoderId::OpenClipH, EncoderId::OpenClipG];

    /// `clip_l`, `clip_h` or `clip_g`.
    pub const fn tag(self) -> &'static str {
        match self {
            EncoderId::ClipL => "clip_l",
            EncoderId::OpenClipH => "clip_h",
            EncoderId::OpenClipG => "clip_g",
        }
    }

    /// Channels of the published tower: 768, 1024 or 1280.
    pub const fn width(self) -> usize {
        match self {
            EncoderId::ClipL => 768,
            EncoderId::OpenClipH => 1024,
            EncoderId::OpenClipG => 1280,
        }
    }

    /// Layers of the whole tower: SD 2 folders of diffusers leave ViT-H's last one out
    /// (`num_hidden_layers: 23` in their `text_encoder/config.json`), whatever its size.
    pub(crate) const fn full_layers(self, width: usize, layers: usize) -> usize {
        match (self, width) {
            (EncoderId::OpenClipH, 1024) => 24,
            // The tiny stand-in of `Synthetic`.
            (EncoderId::OpenClipH, 192) => 4,
            _ => layers,
        }
    }

    /// transformers' name of the activation that the published tower was trained with.
    pub(crate) const fn usual_activation(self) -> &'static str {
        match self {
            EncoderId::ClipL => "quick_gelu",
            EncoderId::OpenClipH | EncoderId::OpenClipG => "gelu",
        }
    }
}

impl fmt::Display for EncoderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

/// A family of diffusion models that share one kind of conditioning.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Stable Diffusion 1.x: ViT-L, 77×768.
    Sd1,
    /// Stable Diffusion 2.x and SD-Turbo: ViT-H, 77×1024.
    Sd2,
    /// SDXL base and what was made from it: ViT-L and ViT-bigG, 77×2048, pooled 1280.
    Sdxl,
    /// The SDXL refiner: ViT-bigG, 77×1280, pooled 1280.
    Refiner,
}

impl Family {
    /// All four.
    pub const ALL: [Family; 4] = [Family::Sd1, Family::Sd2, Family::Sdxl, Family::Refiner];

    /// `sd1`, `sd2`, `sdxl` or `refiner`.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Sd1 => "sd1",
            Family::Sd2 => "sd2",
            Family::Sdxl => "sdxl",
            Family::Refiner => "refiner",
        }
    }

    /// The encoders it reads, in the order in which their channels are joined.
    pub const fn encoders(self) -> &'static [EncoderId] {
        match self {
            Family::Sd1 => &[EncoderId::ClipL],
            Family::Sd2 => &[EncoderId::OpenClipH],
            Family::Sdxl => &[EncoderId::ClipL, EncoderId::OpenClipG],
            Family::Refiner => &[EncoderId::OpenClipG],
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = Error;

    /// The family of this [`name`](Family::name).
    fn from_str(name: &str) -> Result<Family> {
        let found = Family::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| unknown_name("family", name, &Family::ALL.map(Family::name)))
    }
}

/// What is known of a tensor before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows first, as `PyTorch` prints it.
    pub shape: Vec<usize>,
    /// How it is stored: `F32`, `F16`, `BF16`, `F8_E4M3`…
    pub stored: String,
}

/// The tensors of one text encoder under canonical names.
///
/// | name | shape |
/// |---|---|
/// | `token_embedding` | `[vocabulary, width]` |
/// | `position_embedding` | `[77, width]` |
/// | `layers.N.{ln1,ln2}.{weight,bias}` | `[width]` |
/// | `layers.N.{q,k,v,out}.{weight,bias}` | `[width, width]`, `[width]` |
/// | `layers.N.fc1.{weight,bias}` | `[4·width, width]`, `[4·width]` |
/// | `layers.N.fc2.{weight,bias}` | `[width, 4·width]`, `[width]` |
/// | `final_ln.{weight,bias}` | `[width]` |
/// | `projection` (may be absent) | `[projected, width]` |
///
/// All matrices are `[out, in]`, whatever the file has.
pub trait TensorSource: fmt::Debug + Send + Sync {
    /// All canonical names it has, in no promised order.
    fn names(&self) -> Vec<String>;

    /// Shape and stored type of one, or `None`.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Reads one tensor, converted to `dtype` on `device`.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor>;

    /// Reads stacks of tensors, each of one width and below each other as one tensor: query, key and
    /// value lie so in memory. On a CPU the stacks may share one piece of memory, which stays as long
    /// as any of them does.
    fn load_stacks(
        &self,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let load = |name: &String| self.load(name, dtype, device);
        let parts = |names: &Vec<String>| names.iter().map(load).collect::<Result<_>>();
        stacks.iter().map(|names| stack(parts(names)?)).collect()
    }

    /// The same on a device with a way of its own for values that come in parts.
    fn load_stacks_by(
        &self,
        transfers: &dyn Transfers,
        stacks: &[Vec<String>],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<Tensor>> {
        let _ = transfers;
        self.load_stacks(stacks, dtype, device)
    }

    /// A stack as a matrix that stays where the system has its file, looked at like any other. `None` where
    /// its values do not lie there as they are wanted, row by row; then [`load_stacks`](Self::load_stacks)
    /// gives it. Files are mapped by this crate's sources only: another can hand on what one of those gives.
    fn map_stack(&self, names: &[String], word: Unchanging) -> Result<Option<Mapped>> {
        let _ = (names, word);
        Ok(None)
    }

    /// Reads one matrix as it is quantized, without expanding it. `None` where the file has it in
    /// another way; then [`load`](Self::load) gives it.
    fn load_quantized(&self, name: &str, device: &Device) -> Result<Option<QTensor>> {
        let _ = (name, device);
        Ok(None)
    }

    /// The activation that a configuration beside the tensors names (`quick_gelu`, `gelu`,
    /// `gelu_new`…): no tensor tells it. `None` where there is no configuration; then it follows
    /// from the encoder.
    fn hidden_act(&self) -> Option<&str> {
        None
    }
}

/// Below each other; a lone one is not copied.
pub(crate) fn stack(parts: Vec<Tensor>) -> Result<Tensor> {
    match <[Tensor; 1]>::try_from(parts) {
        Ok([only]) => Ok(only),
        Err(parts) => Ok(Tensor::cat(&parts, 0)?),
    }
}

/// What became of a file's tensors.
#[non_exhaustive]
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that went into an encoder, as the file names them.
    pub used: Vec<String>,
    /// Tensors inside an encoder's root that no rule knows: a newer layout announces itself here.
    pub unused: Vec<String>,
    /// Conversions between the file and what is computed in, such as `F16 -> F32`, with how many tensors each:
    /// once on the way in, or in each forward for those that stay in their file.
    pub cast: BTreeMap<String, usize>,
    /// Tensors passed over on purpose, by class (`unet`, `vae`, `position_ids`…), with how many each.
    pub ignored: BTreeMap<String, usize>,
    /// Things a person should know, such as a damaged buffer that was rebuilt.
    pub notes: Vec<String>,
}

impl LoadReport {
    /// Adds another file's report.
    pub fn merge(&mut self, other: LoadReport) {
        self.used.extend(other.used);
        self.unused.extend(other.unused);
        self.notes.extend(other.notes);
        for (how, count) in other.cast {
            *self.cast.entry(how).or_default() += count;
        }
        for (class, count) in other.ignored {
            *self.ignored.entry(class).or_default() += count;
        }
    }
}
