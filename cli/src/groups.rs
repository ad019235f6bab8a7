//! Groups of options that commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use sd_conditioner::encoder::Gelu;
use sd_conditioner::profile::EqualLengths;
use sd_conditioner::tokens::Cleaner;
use sd_conditioner::{Dialect, Emphasis, Family, Profile, Result};

use crate::job::Only;
use crate::names::{self, FamilyChoice, SplitChoice};
use crate::supplies::Supplies;
use crate::values::{self, Engine, MapFiles, Place, Point, Precision, Size};

/// The seed of the published test values.
const SEED: &str = "73";

/// What is wrong with a command line.
pub(crate) type Wrong = Option<(ErrorKind, &'static str)>;

#[derive(Args, Debug)]
pub(crate) struct WeightFlags {
    /// A file, a folder or a known name (see `list`); several where encoders come in separate files
    #[arg(long, value_name = "NAME or PATH", num_args = 1..)]
    pub(crate) weights: Vec<String>,
    /// The family; `auto` reads it from the weights
    #[arg(long, default_value = "auto", value_parser = family_parser())]
    pub(crate) family: FamilyChoice,
    /// Which variant of a diffusers folder to read, such as fp16
    #[arg(long)]
    pub(crate) variant: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SourceFlags {
    #[command(flatten)]
    pub(crate) weights: WeightFlags,
    /// Build seeded random encoders of `--family`; their embeddings mean nothing
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = SEED,
        value_parser = names::seed)]
    pub(crate) random_weights: Option<u64>,
    /// With --random-weights: few and narrow layers, for tests
    #[arg(long)]
    pub(crate) tiny: bool,
    /// A folder that keeps what windows gave from one run to the next, up to 4 GiB; windows that are
    /// known are not encoded again
    #[arg(long, value_name = "DIR", requires = "source")]
    pub(crate) cache_dir: Option<PathBuf>,
}

impl SourceFlags {
    /// The family that was named.
    pub(crate) fn family(&self) -> Option<Family> {
        self.weights.family.0
    }

    /// Whether there are encoders to load or to build.
    pub(crate) fn is_given(&self) -> bool {
        self.random_weights.is_some() || !self.weights.weights.is_empty()
    }

    /// What they are: the names of files or of checkpoints, or a seed.
    pub(crate) fn named(&self) -> String {
        if let Some(seed) = self.random_weights {
            let tiny = if self.tiny { ", tiny" } else { "" };
            return format!("random {seed}{tiny}");
        }
        let names = self.weights.weights.iter().map(|given| {
            let name = Path::new(given).file_name();
            name.map_or_else(|| given.clone(), |name| name.to_string_lossy().into_owned())
        });
        names.collect::<Vec<_>>().join(" + ")
    }

    /// What clap's own rules cannot say.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        match (self.random_weights, self.family()) {
            (Some(_), None) => Some("--random-weights needs a --family other than auto"),
            (Some(_), Some(_)) if self.weights.variant.is_some() => {
                Some("--variant chooses among files, and --random-weights reads none")
            }
            (None, _) if self.tiny => Some("--tiny needs --random-weights"),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct TextFlags {
    /// The prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) positive: Option<String>,
    /// SDXL: another text for the second encoder
    #[arg(long = "positive-2", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) positive_2: Option<String>,
    /// The negative prompt; without it there is none, which may differ from an empty one
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) negative: Option<String>,
    /// SDXL: another negative text for the second encoder
    #[arg(long = "negative-2", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) negative_2: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct MannerFlags {
    /// Whose numbers; the options below change one choice of it each
    #[arg(long, default_value = Profile::default().name(), value_parser = profile_parser())]
    pub(crate) profile: Profile,
    /// Another text clean-up than the profile's
    #[arg(long, value_parser = cleaner_parser())]
    pub(crate) cleaner: Option<Cleaner>,
    /// Another grammar than the profile's
    #[arg(long, value_parser = dialect_parser())]
    pub(crate) dialect: Option<Dialect>,
    /// Another way to apply strengths: comfyui, a1111-original, a1111-no-norm, ignore, none, compel,
    /// compel-remove, lpw, lpw-sdxl, sd-cpp,
    /// `adv:<none|mean|length|length+mean>:<comfy|A1111|compel|comfy++|down_weight>`
    #[arg(long, value_parser = names::emphasis)]
    pub(crate) emphasis: Option<Emphasis>,
    /// Another way to cut long prompts: truncate, groups, comma, comma:N, sd-cpp, lpw, lpw-sdxl, or
    /// compel's sentences, phrases, words, brutal, each with +copy-first or +merge for its end rows
    #[arg(long, value_parser = names::split)]
    pub(crate) split: Option<SplitChoice>,
    /// Another way to bring positive and negative to one length
    #[arg(long, value_parser = equal_lengths_parser())]
    pub(crate) equal_lengths: Option<EqualLengths>,
    /// Another GELU than the profile's: each encoder's own, or the tanh form in ViT-H and ViT-bigG
    #[arg(long, value_parser = gelu_parser())]
    pub(crate) gelu: Option<Gelu>,
    /// At least so many windows of 77 rows: short prompts are followed by empty ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) least_windows: Option<u8>,
    /// Read prompt editing ([from:to:0.5], [one|other]) and AND for so many steps
    #[arg(long, value_name = "N", value_parser = names::steps)]
    pub(crate) steps: Option<u32>,
    /// With --steps: the hires pass, too
    #[arg(long, value_name = "M", value_parser = names::steps, requires = "steps")]
    pub(crate) hires_steps: Option<u32>,
    /// Textual-inversion files that prompts may name, in the profile's own way
    #[arg(long, value_name = "DIR")]
    pub(crate) embeddings: Option<PathBuf>,
    /// LoRA files that prompts may name: `<lora:name:0.8>` in A1111's, `withLora(name)` in compel's
    #[arg(long, value_name = "DIR")]
    pub(crate) loras: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct SizeFlags {
    /// SDXL: size of the original picture [default: 1024x1024]
    #[arg(long, value_name = "WxH")]
    pub(crate) size: Option<Size>,
    /// SDXL: left and top of the crop [default: 0,0]
    #[arg(long, value_name = "X,Y")]
    pub(crate) crop: Option<Point>,
    /// SDXL base: size of the target [default: --size]
    #[arg(long, value_name = "WxH")]
    pub(crate) target_size: Option<Size>,
    /// Refiner: aesthetic score [default: 6]
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = values::score)]
    pub(crate) aesthetic_score: Option<f32>,
    /// Refiner: aesthetic score of the negative side [default: 2.5]
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = values::score)]
    pub(crate) negative_aesthetic_score: Option<f32>,
}

#[derive(Args, Debug)]
pub(crate) struct ComputeFlags {
    /// How the encoders' matrices are kept
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) dtype: Precision,
    /// Keep quantized matrices of GGUF files as they are: less memory, the same numbers
    #[arg(long)]
    pub(crate) keep_quantized: bool,
    /// Whether the CPU reads matrices where the system has their file, so that loading copies none; the
    /// files must not be changed meanwhile, nor their disk go away
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub(crate) map_files: MapFiles,
    /// Where to compute: cpu, cuda, cuda:N or metal. What is compiled and measured for an NVIDIA card is kept for the
    /// next run in `sd-conditioner/kernels` of the user's cache folder, or where a --cache-dir is given, in that
    #[arg(long, default_value_t)]
    pub(crate) device: Place,
    /// What runs the encoders
    #[arg(long, value_enum, default_value = "fastest")]
    pub(crate) kernels: Engine,
}

#[derive(Args, Debug)]
pub(crate) struct TargetFlags {
    /// The file to write; NAME`_te_outputs.npz` is what kohya's sd-scripts cache of an SDXL prompt,
    /// and NAME.conditioning what `ComfyUI`'s custom nodes load (the positive prompt alone)
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["requests", "out_dir"])]
    pub(crate) out: Option<PathBuf>,
    /// One JSON object a line, with `id` and these options by their long names with underscores, but
    /// sizes as `width`, `height`, `crop_left`, `crop_top`, `target_width`, `target_height` and `LoRAs`
    /// as the list `loras`; what a line leaves out is taken from the command line; `-` is standard input
    #[arg(long, value_name = "FILE.jsonl", requires = "out_dir")]
    pub(crate) requests: Option<PathBuf>,
    /// Where `<id>.safetensors` are written, or the files of --format or --pack
    #[arg(long, value_name = "DIR", requires = "requests")]
    pub(crate) out_dir: Option<PathBuf>,
    /// How the tensors are written
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) out_dtype: Precision,
    /// Make and write one side alone: half the bytes. Without it a negative side is written always,
    /// whether a negative was given or not
    #[arg(long, value_name = "SIDE", value_enum)]
    pub(crate) only: Option<Only>,
}

impl MannerFlags {
    /// What the folders hold; the paths of request lines start at their file.
    pub(crate) fn supplies(&self, requests: Option<&Path>) -> Result<Supplies> {
        Supplies::open(self.embeddings.as_deref(), self.loras.as_deref(), requests)
    }
}

impl TextFlags {
    /// What clap's own rules cannot say.
    pub(crate) fn wrong(&self) -> Wrong {
        let alone = self.negative_2.is_some() && self.negative.is_none();
        alone.then_some((
            ErrorKind::MissingRequiredArgument,
            "--negative-2 needs --negative (which may be empty)",
        ))
    }
}

fn family_parser() -> impl TypedValueParser<Value = FamilyChoice> {
    PossibleValuesParser::new(FamilyChoice::names()).map(|name| FamilyChoice::named(&name))
}

pub(crate) fn profile_parser() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(Profile::ALL.map(Profile::name)).try_map(|name| names::profile(&name))
}

fn cleaner_parser() -> impl TypedValueParser<Value = Cleaner> {
    PossibleValuesParser::new(names::cleaner_names()).try_map(|name| names::cleaner(&name))
}

fn dialect_parser() -> impl TypedValueParser<Value = Dialect> {
    PossibleValuesParser::new(names::dialect_names()).try_map(|name| names::dialect(&name))
}

fn equal_lengths_parser() -> impl TypedValueParser<Value = EqualLengths> {
    let known = names::equal_lengths_names();
    PossibleValuesParser::new(known).try_map(|name| names::equal_lengths(&name))
}

fn gelu_parser() -> impl TypedValueParser<Value = Gelu> {
    PossibleValuesParser::new(names::gelu_names()).try_map(|name| names::gelu(&name))
}
