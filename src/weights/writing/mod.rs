//! CANONICAL TENSORS → FILES. Text encoders in another layout or data type, bit for bit where
//! neither the type nor the reader of the layout asks for less.

mod config;
mod names;
mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::format::appearing::{appearing, expect_nothing};
use super::format::writer;
use super::{Checkpoint, EncoderId, Encoders, TensorSource};
use crate::error::{Error, ErrorKind, Result};
use crate::stop::Stop;
use crate::threads;
use plan::{Outgoing, Planned};

/// How encoders are laid out in what is written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrangement {
    /// A folder with `text_encoder` and `text_encoder_2`, each with `config.json` and
    /// `model.safetensors`, as diffusers and transformers read it.
    Diffusers,
    /// One file under the names of the original checkpoints (LDM for SD 1 and 2, SGM for SDXL and
    /// its refiner), without U-Net and VAE.
    SingleFile,
    /// One file for each encoder in transformers' names, as `ComfyUI` keeps them in `text_encoders`:
    /// a file for one encoder, a folder with `clip_l.safetensors` and so on for two.
    Standalone,
}

impl Arrangement {
    /// All three.
    pub const ALL: [Arrangement; 3] = [
        Arrangement::Diffusers,
        Arrangement::SingleFile,
        Arrangement::Standalone,
    ];

    /// `diffusers`, `single-file` or `standalone`.
    pub const fn name(self) -> &'static str {
        match self {
            Arrangement::Diffusers => "diffusers",
            Arrangement::SingleFile => "single-file",
            Arrangement::Standalone => "standalone",
        }
    }
}

/// What [`Conversion::write`] calls before each tensor: the file, how many of its tensors are
/// written, how many it will have.
pub type WriteProgress<'a> = &'a mut dyn FnMut(&Path, usize, usize);

/// How text encoders are to be written.
///
/// ```no_run
/// use sd_conditioner::candle_core::DType;
/// use sd_conditioner::weights::{Arrangement, Checkpoint, Conversion};
///
/// let checkpoint = Checkpoint::open("model.safetensors")?;
/// let conversion = Conversion::to(Arrangement::Diffusers).dtype(DType::F16);
/// let report = conversion.write(&checkpoint, "model-diffusers", &mut |_, _, _| ())?;
/// for note in report.notes {
///     eprintln!("{note}");
/// }
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conversion {
    arrangement: Arrangement,
    dtype: Option<DType>,
    only: Option<EncoderId>,
    stop: Stop,
}

/// What was written.
#[must_use]
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// The files, configurations included.
    pub files: Vec<PathBuf>,
    /// Tensors in them.
    pub n_tensors: usize,
    /// What was left out, and why; what readers should know.
    pub notes: Vec<String>,
}

impl Conversion {
    /// Into this arrangement, each tensor in the type in which it is stored. Types that no reader
    /// of the arrangement knows (8 bits with scales, quantised blocks, 64 bits) become `f32`.
    pub fn to(arrangement: Arrangement) -> Conversion {
        Conversion {
            arrangement,
            dtype: None,
            only: None,
            stop: Stop::default(),
        }
    }

    /// All tensors in one type: `F32`, `F16` or `BF16`.
    #[must_use]
    pub fn dtype(mut self, dtype: DType) -> Conversion {
        self.dtype = Some(dtype);
        self
    }

    /// One of the encoders alone.
    #[must_use]
    pub fn only(mut self, encoder: EncoderId) -> Conversion {
        self.only = Some(encoder);
        self
    }

    /// Gives up writing ([`ErrorKind::Stopped`]) as soon as `asked` says so, and removes what was written.
    /// It is asked before each tensor, on the thread that writes. Of several closures one is enough.
    #[must_use]
    pub fn stop_when(mut self, asked: impl Fn() -> bool + Send + Sync + 'static) -> Conversion {
        self.stop.when(asked);
        self
    }

    /// Writes the encoders of `checkpoint` to `out`, which must not exist yet and appears when all of it is written.
    /// Nothing stays when anything fails; what a run left that was killed, the next one to the same place removes.
    ///
    /// For diffusers, SD 2's encoder loses its 24th layer and its projection, as diffusers' own
    /// converter has it: SD 2 reads the state before that layer, and diffusers the last state.
    ///
    /// # Errors
    ///
    /// `out` exists, the checkpoint lacks an encoder or a tensor, a value is too large for the type
    /// (named by tensor), or the file system refuses.
    pub fn write(
        &self,
        checkpoint: &Checkpoint,
        out: impl AsRef<Path>,
        progress: WriteProgress<'_>,
    ) -> Result<ConversionReport> {
        self.write_encoders(self.sources(checkpoint)?, out, progress)
    }

    /// The same for encoders that come from elsewhere, [`Synthetic`](super::Synthetic) ones for example.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_encoders(
        &self,
        encoders: Encoders,
        out: impl AsRef<Path>,
        progress: WriteProgress<'_>,
    ) -> Result<ConversionReport> {
        let out = out.as_ref();
        self.check(out)?;
        threads::expect()?;
        let wanted = |(encoder, _): &(EncoderId, _)| self.only.is_none_or(|only| only == *encoder);
        let sources = encoders.into_iter().filter(wanted);
        let sources: Vec<Source> = sources
            .map(|(encoder, tensors)| Source { encoder, tensors })
            .collect();
        if sources.is_empty() {
            let message = "there is no encoder to write, or not the one that is wanted";
            return Err(Error::new(ErrorKind::MissingTensor, message).at_path(out));
        }
        let plan = plan::plan(self.arrangement, self.dtype, &sources, out)?;
        let mut tell = |path: &Path, done, total| {
            self.stop.check()?;
            progress(path, done, total);
            Ok(())
        };
        appearing(out, |place| {
            write_all(&plan, (out, place), &sources, &mut tell)
        })
    }

    fn check(&self, out: &Path) -> Result<()> {
        if let Some(dtype) = self.dtype
            && !matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
        {
            let message = format!("weights are written as f32, f16 or bf16, not as {dtype:?}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        expect_nothing(out)
    }

    fn sources(&self, checkpoint: &Checkpoint) -> Result<Encoders> {
        let encoders = checkpoint.encoders().into_iter();
        let wanted: Vec<_> = match self.only {
            Some(encoder) => vec![encoder],
            None => encoders.collect(),
        };
        let source = |encoder| Ok((encoder, checkpoint.encoder(encoder)?));
        wanted.into_iter().map(source).collect()
    }
}

/// An encoder that is to be written.
#[derive(Debug)]
struct Source {
    encoder: EncoderId,
    tensors: Box<dyn TensorSource>,
}

/// What is called before each tensor; an error ends the writing.
type Tell<'a> = &'a mut dyn FnMut(&Path, usize, usize) -> Result<()>;

/// Writes what is planned for `out` to another `place`, from where it is moved there as a whole. What is told are the
/// paths that files will have.
fn write_all(
    plan: &Planned,
    (out, place): (&Path, &Path),
    sources: &[Source],
    tell: Tell<'_>,
) -> Result<ConversionReport> {
    let now = |path: &Path| match path.strip_prefix(out) {
        Ok(below) if below != Path::new("") => place.join(below),
        _ => place.to_owned(),
    };
    let mut report = ConversionReport {
        notes: plan.notes.clone(),
        ..ConversionReport::default()
    };
    for folder in &plan.folders {
        fs::create_dir_all(now(folder)).map_err(|error| Error::io(folder, error))?;
    }
    for (path, text) in &plan.texts {
        writer::bytes(&now(path), text.as_bytes())?;
        report.files.push(path.clone());
    }
    for file in &plan.files {
        write_file(file, &now(&file.path), (&plan.metadata, sources), tell)?;
        report.n_tensors += file.tensors.len();
        report.files.push(file.path.clone());
    }
    Ok(report)
}

/// Writes the tensors of one file, each as soon as it is read, to where it is for now.
fn write_file(
    file: &plan::File,
    now: &Path,
    (metadata, sources): (&BTreeMap<String, String>, &[Source]),
    tell: Tell<'_>,
) -> Result<()> {
    let outlines: Vec<_> = file.tensors.iter().map(|one| one.outline.clone()).collect();
    writer::write(now, metadata, &outlines, |number| {
        tell(&file.path, number, outlines.len())?;
        load(&file.tensors[number], sources)
    })
}

/// Reads the parts of a tensor and puts them together as the layout has them.
fn load(outgoing: &Outgoing, sources: &[Source]) -> Result<Tensor> {
    let source = &sources[outgoing.source].tensors;
    let part = |name: &String| narrowed(source.as_ref(), name, outgoing.dtype);
    let parts: Vec<Tensor> = outgoing.parts.iter().map(part).collect::<Result<_>>()?;
    let joined = match &parts[..] {
        [one] => one.clone(),
        several => Tensor::cat(several, 0)?,
    };
    if outgoing.transposed {
        return Ok(joined.t()?.contiguous()?);
    }
    Ok(joined)
}

/// A tensor in `dtype`; refuses values that become infinite on the way.
fn narrowed(source: &dyn TensorSource, name: &str, dtype: DType) -> Result<Tensor> {
    let tensor = source.load(name, dtype, &Device::Cpu)?;
    let stored = source.info(name).map(|info| info.stored);
    if dtype == DType::F16 && stored.as_deref() != Some("F16") {
        let largest = tensor.abs()?.flatten_all()?.max(0)?;
        if !largest
            .to_dtype(DType::F32)?
            .to_scalar::<f32>()?
            .is_finite()
        {
            let message = "a value is too large for f16, whose largest is 65504";
            return Err(Error::new(ErrorKind::TensorValue, message)
                .at_tensor(name)
                .hint("convert to bf16 or f32"));
        }
    }
    Ok(tensor)
}
