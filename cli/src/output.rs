//! Conditionings → the tensors of a file by name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;
use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::storage::diffusers;
use sd_conditioner::{Conditioning, Result};

use crate::job::Side;
use crate::schedules::PassConditionings;

/// How names of sizes end. They are f32 whatever type a file has.
pub(crate) const TIME_IDS: &str = "time_ids";

/// The tensors of a file by name, batch first, on the CPU.
pub(crate) type Named = BTreeMap<String, Tensor>;

/// The tensors that a U-Net of this family takes. The sides hold f32, so that nothing is rounded before
/// the last step.
pub(crate) fn of_sides(sides: &[(Side, Conditioning)], dtype: DType) -> Result<Named> {
    let mut named = Named::new();
    for (side, made) in sides {
        for (name, tensor) in of_one(made, dtype)? {
            named.insert(format!("{}{name}", side.prefix()), tensor);
        }
    }
    Ok(named)
}

/// The same for every step range of every pass: `prompt_embeds.0`, `prompt_embeds.1`… The size
/// numbers do not change with the step and have no number.
pub(crate) fn of_passes(passes: &[PassConditionings], dtype: DType) -> Result<Named> {
    let mut named = Named::new();
    for PassConditionings { pass, sides } in passes {
        for (side, timeline) in sides {
            for (index, entry) in timeline.entries().enumerate() {
                for (name, tensor) in of_one(&entry.conditioning, dtype)? {
                    let number = match name.as_str() {
                        TIME_IDS => String::new(),
                        _ => format!(".{index}"),
                    };
                    let name = format!("{}{}{name}{number}", pass.prefix, side.prefix());
                    named.insert(name, tensor);
                }
            }
        }
    }
    Ok(named)
}

/// One prompt's, in the type of the file.
fn of_one(side: &Conditioning, dtype: DType) -> Result<Vec<(String, Tensor)>> {
    diffusers::tensors(&side.to_device(&Device::Cpu)?.to_dtype(dtype)?, "")
}

/// Refuses a place that cannot take a file, before anything long is begun.
pub(crate) fn check_place(path: &Path) -> anyhow::Result<()> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        bail!("{}: there is no such folder to write to", folder.display());
    }
    if path.is_dir() || path.file_name().is_none() {
        bail!("{}: a folder, and a file is to be written", path.display());
    }
    if path == Path::new("-") {
        bail!("`-`: a file is written, and standard output is none; give the name of a file");
    }
    expect_file(path)
}

/// Refuses what is there and no file, such as a pipe or a device: a file would take its place.
pub(crate) fn expect_file(path: &Path) -> anyhow::Result<()> {
    let there = path.symlink_metadata().is_ok();
    if there && !path.metadata().is_ok_and(|there| there.is_file()) {
        bail!(
            "{}: what is there is no file and is not replaced; give another name",
            path.display()
        );
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(path);
    if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    }
}
