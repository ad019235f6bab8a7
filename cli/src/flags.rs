//! What was typed → what it means.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory as _, Parser, Subcommand};
use sd_conditioner::weights::{Arrangement, EncoderId};

use crate::bench::BenchFlags;
use crate::bulk::BulkFlags;
use crate::graph::GraphFlags;
use crate::groups::{
    ComputeFlags, MannerFlags, SizeFlags, SourceFlags, TargetFlags, TextFlags, WeightFlags, Wrong,
};
use crate::loras::{self, LoraFile};
use crate::values::{self, Precision};

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

/// How a LoRA is given.
const LORA: &str = "FILE[:STRENGTH[:STRENGTH_2]]";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encode a prompt and its negative, or a file of them, into safetensors
    Encode(Box<EncodeFlags>),
    /// Show windows, ids and pieces of a prompt, and what is cut
    Tokens(Box<TokensFlags>),
    /// Show how the profiles read one prompt, and with weights how near their results are
    Compare(Box<CompareFlags>),
    /// Show what a checkpoint, LoRA or embedding holds; reads headers only
    Inspect(InspectFlags),
    /// Make the conditionings of a ComfyUI workflow, without ComfyUI
    Graph(GraphFlags),
    /// Write a checkpoint's text encoders in another layout or data type
    Convert(ConvertFlags),
    /// Fetch a checkpoint by name into the Hugging Face cache
    Pull(PullFlags),
    /// Measure load, first and every stage on this machine
    Bench(Box<BenchFlags>),
    /// List the checkpoints known by name
    List,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("source").args(["weights", "random_weights"]).required(true))]
pub(crate) struct EncodeFlags {
    #[command(flatten)]
    pub(crate) source: SourceFlags,
    #[command(flatten)]
    pub(crate) texts: TextFlags,
    #[command(flatten)]
    pub(crate) manner: MannerFlags,
    /// Clip skip in the profile's own numbering: ComfyUI -1, -2…; A1111 1, 2…; diffusers 0, 1…
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) clip_skip: Option<i32>,
    /// A LoRA for the text encoders with its strength [default: 1], and another strength for SDXL's
    /// second encoder; may be repeated
    #[arg(long, value_name = LORA, value_parser = loras::typed)]
    pub(crate) lora: Vec<LoraFile>,
    #[command(flatten)]
    pub(crate) sizes: SizeFlags,
    #[command(flatten)]
    pub(crate) compute: ComputeFlags,
    #[command(flatten)]
    pub(crate) target: TargetFlags,
    #[command(flatten)]
    pub(crate) bulk: BulkFlags,
}

#[derive(Args, Debug)]
pub(crate) struct TokensFlags {
    #[command(flatten)]
    pub(crate) weights: WeightFlags,
    #[command(flatten)]
    pub(crate) texts: TextFlags,
    #[command(flatten)]
    pub(crate) manner: MannerFlags,
    /// A table for each encoder: ids, pieces, strengths, and which bytes of the text each is from
    #[arg(long)]
    pub(crate) explain: bool,
    /// Write the same as one self-contained page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// One JSON object
    #[arg(long, conflicts_with = "explain")]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("source").args(["weights", "random_weights"]),
    group = ArgGroup::new("computing")
        .args(["dtype", "keep_quantized", "map_files", "device", "kernels"])
        .multiple(true)
        .requires("source"),
)]
pub(crate) struct CompareFlags {
    /// The prompt; it comes first, since --weights takes all names that follow it
    #[arg(value_name = "PROMPT", allow_hyphen_values = true)]
    pub(crate) text: String,
    #[command(flatten)]
    pub(crate) source: SourceFlags,
    /// Textual-inversion files that the prompt may name, in each profile's own way
    #[arg(long, value_name = "DIR")]
    pub(crate) embeddings: Option<PathBuf>,
    /// A LoRA for the text encoders, as `encode` takes it; may be repeated
    #[arg(long, value_name = LORA, value_parser = loras::typed, requires = "source")]
    pub(crate) lora: Vec<LoraFile>,
    /// LoRA files that the prompt may name, in each profile's own way
    #[arg(long, value_name = "DIR")]
    pub(crate) loras: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeFlags,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InspectFlags {
    /// A checkpoint (a file or a diffusers folder), a LoRA or an embedding
    pub(crate) file: PathBuf,
    /// Which variant of a diffusers folder to read, such as fp16
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ConvertFlags {
    /// A checkpoint file or a diffusers folder
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// The file or folder to write, which must not exist yet
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// diffusers: a folder with configurations; single-file: the original checkpoints' names;
    /// standalone: a file for each encoder
    #[arg(long, value_parser = layout_parser())]
    pub(crate) layout: Arrangement,
    /// The type of all tensors [default: as they are stored]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Precision>,
    /// One encoder alone: `clip_l`, `clip_h` or `clip_g`
    #[arg(long, value_parser = encoder_parser())]
    pub(crate) encoder: Option<EncoderId>,
    /// Which variant of a diffusers folder to read, such as fp16
    #[arg(long)]
    pub(crate) variant: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct PullFlags {
    /// A name that `list` shows
    pub(crate) name: String,
}

const MISSING: ErrorKind = ErrorKind::MissingRequiredArgument;

/// Reads the command line.
pub(crate) fn parse() -> Result<Arguments, clap::Error> {
    let arguments = Arguments::try_parse()?;
    let (name, wrong) = match &arguments.command {
        Command::Encode(flags) => ("encode", flags.wrong()),
        Command::Tokens(flags) => ("tokens", flags.wrong()),
        Command::Compare(flags) => {
            let wrong = flags.source.wrong().map(|message| (MISSING, message));
            ("compare", wrong)
        }
        Command::Bench(flags) => ("bench", flags.wrong()),
        Command::Inspect(_)
        | Command::Graph(_)
        | Command::Convert(_)
        | Command::Pull(_)
        | Command::List => return Ok(arguments),
    };
    match wrong {
        Some((kind, message)) => Err(of_subcommand(name).error(kind, message)),
        None => Ok(arguments),
    }
}

/// So that an error shows how this one is used.
fn of_subcommand(name: &str) -> clap::Command {
    let mut all = Arguments::command();
    all.build();
    let one = all.find_subcommand(name).cloned();
    one.unwrap_or(all)
}

impl EncodeFlags {
    /// What clap's own rules cannot say.
    fn wrong(&self) -> Wrong {
        let target = &self.target;
        if let Some(message) = self.source.wrong() {
            return Some((MISSING, message));
        }
        if target.requests.is_some() {
            return self.bulk.wrong();
        }
        if self.bulk.is_given() {
            let message = "--resume, --shard, --format, --pack and --batch-windows need --requests";
            return Some((MISSING, message));
        }
        if self.texts.positive.is_none() {
            let message = "--positive TEXT is missing (or --requests FILE.jsonl)";
            return Some((MISSING, message));
        }
        if target.out.is_none() {
            return Some((MISSING, "--out FILE.safetensors is missing"));
        }
        self.texts.wrong()
    }
}

impl TokensFlags {
    fn wrong(&self) -> Wrong {
        if self.texts.positive.is_none() {
            let message = "--positive TEXT is missing";
            return Some((MISSING, message));
        }
        self.texts.wrong()
    }
}

fn layout_parser() -> impl TypedValueParser<Value = Arrangement> {
    PossibleValuesParser::new(Arrangement::ALL.map(Arrangement::name))
        .try_map(|name| values::named(&name, Arrangement::ALL, Arrangement::name))
}

fn encoder_parser() -> impl TypedValueParser<Value = EncoderId> {
    PossibleValuesParser::new(EncoderId::ALL.map(EncoderId::tag))
        .try_map(|name| values::named(&name, EncoderId::ALL, EncoderId::tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
