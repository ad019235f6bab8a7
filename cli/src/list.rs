//! `list`: the names of `weights.toml`.

use std::process::ExitCode;

use indicatif::HumanBytes;
use sd_conditioner::hub::{Entry, Hub, HubOptions};

use crate::ui::{self, Done};
use crate::weights;

/// Prints name, family, size and whether it is in the cache.
pub(crate) fn run() -> Done {
    let hub = Hub::new(HubOptions {
        offline: true,
        ..weights::hub_options()?
    });
    let row = |name: &str, family: &str, size: &str, cached: &str| {
        ui::print(format!("{name:<14} {family:<8} {size:>12}  {cached}"))
    };
    row("NAME", "FAMILY", "SIZE", "CACHED")?;
    for entry in hub.catalog().entries() {
        let cached = hub.fetch_entry(entry, &mut |_| ()).is_ok();
        let cached = if cached { "yes" } else { "no" };
        row(&entry.name, entry.family.name(), &size(entry), cached)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All files together, where every size is known.
fn size(entry: &Entry) -> String {
    let sizes: Option<Vec<u64>> = entry.files.iter().map(|file| file.bytes).collect();
    sizes.map_or_else(
        || "unknown".to_owned(),
        |sizes| HumanBytes(sizes.iter().sum()).to_string(),
    )
}
