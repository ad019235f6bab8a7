//! `convert`: a checkpoint's text encoders → another layout or data type.

use std::process::ExitCode;

use sd_conditioner::weights::{Checkpoint, Conversion};

use crate::flags::ConvertFlags;
use crate::pool;
use crate::progress::Progress;
use crate::ui::{self, Done};
use crate::weights;

/// Writes the encoders and prints the paths of what was written.
pub(crate) fn run(flags: &ConvertFlags, quiet: bool) -> Done {
    pool::start()?;
    weights::expect_path(&flags.input)?;
    let progress = Progress::new(quiet);
    let checkpoint = Checkpoint::open_variant(&flags.input, flags.variant.as_deref())?;
    let mut conversion = Conversion::to(flags.layout);
    if let Some(precision) = flags.dtype {
        conversion = conversion.dtype(precision.dtype());
    }
    if let Some(encoder) = flags.encoder {
        conversion = conversion.only(encoder);
    }
    let written = conversion.write(&checkpoint, &flags.output, &mut |path, done, total| {
        progress.writing(path, done, total);
    });
    progress.clear();
    let written = written?;
    for note in &written.notes {
        ui::warn(note);
    }
    for path in &written.files {
        ui::print(path.display())?;
    }
    progress.summary(format!("wrote {} tensors", written.n_tensors));
    Ok(ExitCode::SUCCESS)
}
