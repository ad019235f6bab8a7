//! NAMES → FILES: a models folder with `ComfyUI`'s subfolders, or whatever you make of names.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device};

use super::needs::{ClipSource, LoraUse, Need, Subfolder};
use crate::conditioner::{Builder, Conditioner, Embeddings};
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::weights::{Checkpoint, Family, Lora};

/// Names listed of those that are there.
const MOST_LISTED: usize = 8;

/// Where a graph's files come from.
pub trait Library: Debug {
    /// An error if a file is not there; reads nothing of it.
    fn check(&self, need: &Need) -> Result<()>;

    /// Text encoders, without LoRAs.
    fn load(&self, source: &ClipSource) -> Result<Conditioner>;

    /// The same encoders with LoRAs, in this order. An error unless a library says otherwise.
    fn with_loras(&self, text: &Conditioner, loras: &[LoraUse]) -> Result<Conditioner> {
        let _ = text;
        let names: Vec<&str> = loras.iter().map(|lora| lora.name.as_str()).collect();
        let message = format!("this library has no LoRAs: {}", names.join(", "));
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// The embeddings that prompts may name.
    fn embeddings(&self) -> Result<Option<Embeddings>> {
        Ok(None)
    }

    /// A number that changes when the files do. Encoders are loaded again then.
    fn stamp(&self, needs: &[Need]) -> u64 {
        let _ = needs;
        0
    }
}

impl<L: Library + ?Sized> Library for &L {
    fn check(&self, need: &Need) -> Result<()> {
        (**self).check(need)
    }

    fn load(&self, source: &ClipSource) -> Result<Conditioner> {
        (**self).load(source)
    }

    fn with_loras(&self, text: &Conditioner, loras: &[LoraUse]) -> Result<Conditioner> {
        (**self).with_loras(text, loras)
    }

    fn embeddings(&self) -> Result<Option<Embeddings>> {
        (**self).embeddings()
    }

    fn stamp(&self, needs: &[Need]) -> u64 {
        (**self).stamp(needs)
    }
}

/// A models folder as `ComfyUI` has it: `checkpoints`, `text_encoders` (or `clip`), `loras`,
/// `embeddings`, `diffusers`, each with folders inside.
///
/// Names are below these, with `/` or `\` between their parts; a name that leads out is refused.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    builder: Builder,
    stop: Stop,
}

impl Folder {
    /// Encoders are loaded on the CPU in f32, unless something else is set.
    pub fn new(root: impl Into<PathBuf>) -> Folder {
        Folder {
            root: root.into(),
            builder: Conditioner::builder(),
            stop: Stop::default(),
        }
    }

    /// How encoders are loaded: device, types, kernels, cache, in place of all that was set before. A family that is
    /// set there goes for each of them.
    #[must_use]
    pub fn loading(self, builder: Builder) -> Folder {
        Folder { builder, ..self }
    }

    /// Where to compute.
    #[must_use]
    pub fn device(self, device: Device) -> Folder {
        let builder = self.builder.clone().device(device);
        self.loading(builder)
    }

    /// How the encoders' matrices are kept ([`Builder::dtype`]).
    #[must_use]
    pub fn dtype(self, dtype: DType) -> Folder {
        let builder = self.builder.clone().dtype(dtype);
        self.loading(builder)
    }

    /// The type of what comes out ([`Builder::output_dtype`]).
    #[must_use]
    pub fn output_dtype(self, dtype: DType) -> Folder {
        let builder = self.builder.clone().output_dtype(dtype);
        self.loading(builder)
    }

    /// Quantized matrices stay as they are ([`Builder::keep_quantized`]).
    #[must_use]
    pub fn keep_quantized(self) -> Folder {
        let builder = self.builder.clone().keep_quantized();
        self.loading(builder)
    }

    /// Gives up loading ([`Builder::stop_when`]), putting on `LoRA`s, and encoding ([`Conditioner::stop_when`]) as
    /// soon as `asked` says so.
    #[must_use]
    pub fn stop_when(mut self, asked: impl Fn() -> bool + Send + Sync + 'static) -> Folder {
        self.stop.when(asked);
        self
    }

    /// The file or folder of a name.
    pub fn resolve(&self, need: &Need) -> Result<PathBuf> {
        let inside = inside(&need.name).ok_or_else(|| {
            let message = format!("the name {:?} leads out of its folder", need.name);
            Error::new(ErrorKind::Workflow, message)
        })?;
        let folders = need.subfolder.names().iter();
        let mut paths = folders.map(|folder| self.root.join(folder).join(&inside));
        let found = paths.find(|path| match need.subfolder {
            Subfolder::Diffusers => path.is_dir(),
            _ => path.is_file(),
        });
        found.ok_or_else(|| self.missing(need))
    }

    fn missing(&self, need: &Need) -> Error {
        let message = format!("no {need}");
        let error = Error::new(ErrorKind::Io, message).at_path(&self.root);
        let folders = need.subfolder.names();
        let mut there: Vec<String> = folders
            .iter()
            .flat_map(|folder| names_in(&self.root.join(folder)))
            .collect();
        there.sort();
        let more = there.len() > MOST_LISTED;
        there.truncate(MOST_LISTED);
        let list = there.join(", ");
        error.hint(match (there.is_empty(), more) {
            (true, _) => format!("there is nothing in {}", folders.join(" or ")),
            (false, false) => format!("there is {list}"),
            (false, true) => format!("there is {list}, …"),
        })
    }

    fn resolve_all(&self, source: &ClipSource) -> Result<Vec<PathBuf>> {
        let needs = source.needs();
        needs.iter().map(|need| self.resolve(need)).collect()
    }
}

impl Library for Folder {
    /// Embeddings may be missing, as in `ComfyUI`.
    fn check(&self, need: &Need) -> Result<()> {
        match need.subfolder {
            Subfolder::Embeddings => Ok(()),
            _ => self.resolve(need).map(drop),
        }
    }

    fn load(&self, source: &ClipSource) -> Result<Conditioner> {
        let paths = self.resolve_all(source)?;
        let parts = paths.iter().map(Checkpoint::open);
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let stop = self.stop.clone();
        let builder = self.builder.clone().stop_when(move || stop.is_asked());
        let builder = match source {
            ClipSource::SdxlEncoders(_) => builder.family(Family::Sdxl),
            ClipSource::Checkpoint(_) | ClipSource::Encoder(_) | ClipSource::Diffusers(_) => {
                builder
            }
        };
        Ok(builder.load(&parts)?.stopped_by(&self.stop))
    }

    /// A LoRA of another family is put on as far as its modules fit, as in `ComfyUI`, which passes
    /// over modules that it does not find (`load_lora_for_models`, `comfy/sd.py`).
    fn with_loras(&self, text: &Conditioner, loras: &[LoraUse]) -> Result<Conditioner> {
        let weighted = loras.iter().map(|lora| {
            let path = self.resolve(&lora.need())?;
            Ok(Lora::open(&path)?.at(lora.strength).for_any_family())
        });
        let weighted = weighted.collect::<Result<Vec<_>>>()?;
        text.with_loras_unless(&weighted, &|| self.stop.is_asked())
    }

    fn embeddings(&self) -> Result<Option<Embeddings>> {
        let folder = self.root.join(Subfolder::Embeddings.names()[0]);
        if !folder.is_dir() {
            return Ok(None);
        }
        Embeddings::folder(folder).map(Some)
    }

    fn stamp(&self, needs: &[Need]) -> u64 {
        let mut hash = DefaultHasher::new();
        for need in needs {
            if let Ok(path) = self.resolve(need)
                && let Ok(metadata) = path.metadata()
            {
                metadata.len().hash(&mut hash);
                metadata.modified().ok().hash(&mut hash);
            }
        }
        hash.finish()
    }
}

/// The name with the system's separators; `None` if it is empty, begins at a root or leads upwards.
fn inside(name: &str) -> Option<PathBuf> {
    let name = PathBuf::from(name.replace('\\', "/"));
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let sound = name.components().all(plain) && name.components().next().is_some();
    sound.then_some(name)
}

/// Names of what is in a folder; nothing if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn names_stay_inside() {
        let cases = [
            ("a.safetensors", true),
            ("SDXL\\a.safetensors", true),
            ("SDXL/sub/a.safetensors", true),
            ("./a", true),
            ("../a", false),
            ("a/../../b", false),
            ("a\\..\\..\\b", false),
            ("/etc/passwd", false),
            ("", false),
        ];
        for (name, sound) in cases {
            assert_eq!(inside(name).is_some(), sound, "{name}");
        }
    }
}
