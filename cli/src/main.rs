//! The `sd-conditioner` command: prompts in, the tensors that a diffusion U-Net takes out.

mod bench;
mod bulk;
mod compare;
mod contents;
mod convert;
mod editing;
mod embeddings;
mod encode;
mod finite;
mod flags;
mod graph;
mod groups;
mod inputs;
mod inspect;
mod job;
mod kernels;
mod kinds;
mod line;
mod list;
mod loras;
mod manner;
mod names;
mod notes;
mod output;
mod paint;
mod pool;
mod progress;
mod pull;
mod schedules;
mod scribe;
mod sides;
mod supplies;
mod together;
mod tokens;
mod ui;
mod values;
mod wardrobe;
mod weights;
mod wishes;
mod worn;

use std::process::ExitCode;

use flags::Command;

fn main() -> ExitCode {
    let arguments = match flags::parse() {
        Ok(arguments) => arguments,
        Err(usage) => return ui::usage(&usage),
    };
    let quiet = arguments.quiet;
    let done = match &arguments.command {
        Command::Encode(flags) => encode::run(flags, quiet),
        Command::Tokens(flags) => tokens::run(flags, quiet),
        Command::Compare(flags) => compare::run(flags, quiet),
        Command::Inspect(flags) => inspect::run(flags),
        Command::Graph(flags) => graph::run(flags, quiet),
        Command::Convert(flags) => convert::run(flags, quiet),
        Command::Pull(flags) => pull::run(flags, quiet),
        Command::Bench(flags) => bench::run(flags, quiet),
        Command::List => list::run(),
    };
    ui::exit_code(done)
}
