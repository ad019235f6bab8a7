//! `graph`: a ComfyUI workflow → a file for each conditioning that a sampler in it is handed.

#[cfg(feature = "graph")]
mod run;
#[cfg(feature = "graph")]
mod table;
#[cfg(feature = "graph")]
mod watch;
#[cfg(feature = "graph")]
mod write;

use std::path::PathBuf;

use clap::Args;

use crate::groups::ComputeFlags;
use crate::values::Precision;

#[derive(Args, Debug)]
pub(crate) struct GraphFlags {
    /// A workflow in either of ComfyUI's JSON formats, or a PNG with one in it
    #[arg(value_name = "WORKFLOW.json or .png")]
    pub(crate) workflow: PathBuf,
    /// A models folder with ComfyUI's subfolders: `checkpoints`, `text_encoders` or
    /// `clip`, `loras`, `embeddings`, `diffusers`
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    pub(crate) models: Option<PathBuf>,
    /// Where `<node id>.<input>.safetensors` are written
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    pub(crate) out_dir: Option<PathBuf>,
    /// Show what is needed, and with --models whether it is there; load nothing
    #[arg(long, conflicts_with_all = ["out_dir", "watch"])]
    pub(crate) plan: bool,
    /// One node only: the conditionings that enter a sampler, or what another node makes
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<String>,
    /// Run again when the workflow changes, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeFlags,
    /// How the tensors are written
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) out_dtype: Precision,
}

#[cfg(feature = "graph")]
pub(crate) use run::run;

/// Says what is missing.
#[cfg(not(feature = "graph"))]
pub(crate) fn run(flags: &GraphFlags, _quiet: bool) -> crate::ui::Done {
    anyhow::bail!(
        "{}: this build cannot read workflows (build with `--features graph`)",
        flags.workflow.display()
    )
}
