//! `pull`: a name → files in the Hugging Face cache.

use std::process::ExitCode;

use sd_conditioner::hub::Origin;

use crate::flags::PullFlags;
use crate::progress::Progress;
use crate::ui::{self, Done};
use crate::weights;

/// Fetches what is not there yet and prints the paths.
pub(crate) fn run(flags: &PullFlags, quiet: bool) -> Done {
    let progress = Progress::new(quiet);
    let hub = weights::hub()?;
    let fetched = hub.fetch(&flags.name, &mut |now| progress.fetching(now));
    progress.clear();
    let fetched = fetched?;
    for (path, origin) in fetched.paths.iter().zip(&fetched.origins) {
        progress.summary(told(origin));
        ui::print(path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(origin: &Origin) -> String {
    match origin {
        Origin::Cache(repo) => format!("in the cache already, from {repo}"),
        Origin::Repository(repo) => format!("fetched from {repo}"),
        Origin::Mirror(repo) => format!("fetched from the mirror {repo}"),
        other => format!("from {other:?}"),
    }
}
