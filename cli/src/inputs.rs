//! What a run reads, so that it does not write there.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::flags::EncodeFlags;
use crate::inspect;
use crate::loras::LoraFile;

/// Files and folders, links followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs(Vec<PathBuf>);

impl Inputs {
    /// Those of the command line.
    pub(crate) fn of(flags: &EncodeFlags) -> Inputs {
        let weights = flags.source.weights.weights.iter().map(Path::new);
        let loras = flags.lora.iter().map(LoraFile::path);
        let folders = [&flags.manner.embeddings, &flags.manner.loras];
        let others = folders.into_iter().chain([&flags.target.requests]);
        let others = others.filter_map(|path| path.as_deref());
        Inputs::new(weights.chain(loras).chain(others))
    }

    fn new<'a>(paths: impl Iterator<Item = &'a Path>) -> Inputs {
        Inputs(paths.filter_map(|path| path.canonicalize().ok()).collect())
    }

    /// Refuses a file that would be replaced although it is one of them, or lies in one of the folders and is none that
    /// was encoded before.
    pub(crate) fn spare(&self, out: &Path) -> anyhow::Result<()> {
        let Ok(there) = out.canonicalize() else {
            return Ok(()); // nothing is there
        };
        let read = self.0.contains(&there);
        let inside = || self.0.iter().any(|input| there.starts_with(input));
        if read || (inside() && !inspect::is_conditioning(&there)) {
            bail!(
                "{}: this run reads it, and would replace it; give another place to write to",
                out.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "models/b", "c"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), name).unwrap();
        }
        let read = [at("a"), at("models"), at("gone")];
        let inputs = Inputs::new(read.iter().map(PathBuf::as_path));
        for (name, spared) in [
            ("a", false),
            ("models/../a", false),
            ("models/b", false),
            ("models/new", true),
            ("c", true),
            ("gone", true),
        ] {
            assert_eq!(inputs.spare(&at(name)).is_ok(), spared, "{name}");
        }
    }
}
