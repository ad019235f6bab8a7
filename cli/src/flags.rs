//! What was typed → what it means.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand};
use sd_conditioner::tokens::Cleaner;
use sd_conditioner::{Family, Profile};

use crate::values::{self, FamilyChoice, Place, Point, Precision, Size};

/// The seed of the published test values.
const SEED: &str = "73";

/// Text conditioning for Stable Diffusion 1.x, 2.x, SDXL and its refiner.
#[derive(Debug, Parser)]
#[command(name = "sd-conditioner", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// No progress and no summary; warnings and errors stay
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encode a prompt and its negative, or a file of them, into safetensors
    Encode(Box<EncodeFlags>),
    /// Show windows, ids and pieces of a prompt, and what is cut
    Tokens(TokensFlags),
    /// Show what a checkpoint file or folder holds; reads headers only
    Inspect(InspectFlags),
    /// Fetch a checkpoint by name into the Hugging Face cache
    Pull(PullFlags),
    /// List the checkpoints known by name
    List,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("source").args(["weights", "random_weights"]).required(true))]
pub(crate) struct EncodeFlags {
    #[command(flatten)]
    pub(crate) weights: WeightFlags,
    /// Build seeded random encoders of `--family`; their embeddings mean nothing
    #[arg(long, value_name = "SEED", num_args = 0..=1, default_missing_value = SEED)]
    pub(crate) random_weights: Option<u64>,
    /// With --random-weights: few and narrow layers, for tests
    #[arg(long)]
    pub(crate) tiny: bool,
    #[command(flatten)]
    pub(crate) texts: TextFlags,
    #[command(flatten)]
    pub(crate) manner: MannerFlags,
    /// Clip skip in the profile's own numbering: ComfyUI -1, -2…; A1111 1, 2…; diffusers 0, 1…
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) clip_skip: Option<i32>,
    #[command(flatten)]
    pub(crate) sizes: SizeFlags,
    #[command(flatten)]
    pub(crate) compute: ComputeFlags,
    #[command(flatten)]
    pub(crate) target: TargetFlags,
}

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
    /// Whose numbers
    #[arg(long, default_value = Profile::default().name(), value_parser = profile_parser())]
    pub(crate) profile: Profile,
    /// Another text clean-up than the profile's
    #[arg(long, value_parser = cleaner_parser())]
    pub(crate) cleaner: Option<Cleaner>,
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
    /// Keep quantized matrices of GGUF files as they are: less memory, more time, the same numbers
    #[arg(long)]
    pub(crate) keep_quantized: bool,
    /// How the tensors are written
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) out_dtype: Precision,
    /// Where to compute: cpu, cuda, cuda:N or metal
    #[arg(long, default_value_t)]
    pub(crate) device: Place,
}

#[derive(Args, Debug)]
pub(crate) struct TargetFlags {
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors", conflicts_with_all = ["requests", "out_dir"])]
    pub(crate) out: Option<PathBuf>,
    /// One JSON object a line, with `id` and these options by their long names with underscores;
    /// what a line leaves out is taken from the command line; `-` is standard input
    #[arg(long, value_name = "FILE.jsonl", requires = "out_dir")]
    pub(crate) requests: Option<PathBuf>,
    /// Where `<id>.safetensors` are written
    #[arg(long, value_name = "DIR", requires = "requests")]
    pub(crate) out_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct TokensFlags {
    #[command(flatten)]
    pub(crate) weights: WeightFlags,
    #[command(flatten)]
    pub(crate) texts: TextFlags,
    #[command(flatten)]
    pub(crate) manner: MannerFlags,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InspectFlags {
    /// A checkpoint file or a diffusers folder
    pub(crate) file: PathBuf,
    /// Which variant of a diffusers folder to read, such as fp16
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PullFlags {
    /// A name that `list` shows
    pub(crate) name: String,
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Arguments, clap::Error> {
    let arguments = Arguments::try_parse()?;
    let wrong = match &arguments.command {
        Command::Encode(flags) => flags.wrong(),
        Command::Tokens(flags) => flags.wrong(),
        Command::Inspect(_) | Command::Pull(_) | Command::List => None,
    };
    match wrong {
        Some((kind, message)) => Err(Arguments::command().error(kind, message)),
        None => Ok(arguments),
    }
}

type Wrong = Option<(ErrorKind, &'static str)>;

impl EncodeFlags {
    /// What clap's own rules cannot say.
    fn wrong(&self) -> Wrong {
        let missing = ErrorKind::MissingRequiredArgument;
        let target = &self.target;
        if let Some(message) = self.wrong_weights() {
            return Some((missing, message));
        }
        if target.requests.is_some() {
            return None;
        }
        if self.texts.positive.is_none() {
            let message = "--positive TEXT is missing (or --requests FILE.jsonl)";
            return Some((missing, message));
        }
        if target.out.is_none() {
            return Some((missing, "--out FILE.safetensors is missing"));
        }
        self.texts.wrong()
    }

    fn wrong_weights(&self) -> Option<&'static str> {
        match (self.random_weights, self.family()) {
            (Some(_), None) => Some("--random-weights needs a --family other than auto"),
            (Some(_), Some(_)) if self.weights.variant.is_some() => {
                Some("--variant chooses among files, and --random-weights reads none")
            }
            (None, _) if self.tiny => Some("--tiny needs --random-weights"),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }

    /// The family that was named.
    pub(crate) fn family(&self) -> Option<Family> {
        self.weights.family.0
    }
}

impl TokensFlags {
    fn wrong(&self) -> Wrong {
        if self.texts.positive.is_none() {
            let message = "--positive TEXT is missing";
            return Some((ErrorKind::MissingRequiredArgument, message));
        }
        self.texts.wrong()
    }
}

impl TextFlags {
    fn wrong(&self) -> Wrong {
        let alone = self.negative_2.is_some() && self.negative.is_none();
        alone.then_some((
            ErrorKind::MissingRequiredArgument,
            "--negative-2 needs --negative (which may be empty)",
        ))
    }
}

fn family_parser() -> impl clap::builder::TypedValueParser<Value = FamilyChoice> {
    PossibleValuesParser::new(FamilyChoice::names()).map(|name| FamilyChoice::named(&name))
}

fn profile_parser() -> impl clap::builder::TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(Profile::ALL.map(Profile::name))
        .try_map(|name| values::profile(&name))
}

fn cleaner_parser() -> impl clap::builder::TypedValueParser<Value = Cleaner> {
    PossibleValuesParser::new(values::cleaner_names()).try_map(|name| values::cleaner(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
