//! What goes wrong while something is written, and for whom.

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::anyhow;

const HINT: &str = "the run ends here, and goes on with --resume when this is mended";

/// What went wrong, and for whom.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This line; the others go on.
    Line(anyhow::Error),
    /// Everything: no other line would fare better, or what was written last cannot be relied on.
    Run(anyhow::Error),
}

impl Trouble {
    /// Of writing a file. A disk that is full is so for all.
    pub(super) fn of_file(error: io::Error, path: &Path) -> Trouble {
        let kind = error.kind();
        let for_all = matches!(
            kind,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
        ) || is_crowded(&error);
        Trouble::of(error, path, for_all)
    }

    /// Of beginning a file in a folder that this run has made.
    pub(super) fn of_folder(error: io::Error, path: &Path) -> Trouble {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => Trouble::of(error, path, true),
            _ => Trouble::of_file(error, path),
        }
    }

    /// Of writing into a packed file, which is everybody's.
    pub(super) fn of_pack(error: &anyhow::Error) -> Trouble {
        Trouble::Run(resumable(error))
    }

    fn of(error: io::Error, path: &Path, for_all: bool) -> Trouble {
        let path = path.display();
        if for_all {
            Trouble::Run(anyhow!("{path}: {error}; {HINT}"))
        } else {
            Trouble::Line(anyhow!(error).context(path.to_string()))
        }
    }
}

/// The error of a run that may go on later.
pub(super) fn resumable(error: &anyhow::Error) -> anyhow::Error {
    anyhow!("{error:#}; {HINT}")
}

/// Whether the system opens no more files, for this process or at all (`EMFILE`, `ENFILE`).
pub(super) fn is_crowded(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_everybodys_and_a_long_name_is_the_lines_own() {
        let path = Path::new("out/a.safetensors");
        let is_run = |kind: ErrorKind| {
            let error = || io::Error::from(kind);
            [
                Trouble::of_file(error(), path),
                Trouble::of_folder(error(), path),
            ]
            .map(|trouble| matches!(trouble, Trouble::Run(_)))
        };
        assert_eq!(is_run(ErrorKind::StorageFull), [true, true]);
        assert_eq!(is_run(ErrorKind::ReadOnlyFilesystem), [true, true]);
        assert_eq!(is_run(ErrorKind::PermissionDenied), [false, true]);
        assert_eq!(is_run(ErrorKind::InvalidFilename), [false, false]);
        #[cfg(unix)]
        for number in [23, 24] {
            let error = io::Error::from_raw_os_error(number);
            assert!(matches!(Trouble::of_folder(error, path), Trouble::Run(_)));
        }
        let Trouble::Run(error) = Trouble::of_file(ErrorKind::StorageFull.into(), path) else {
            panic!("a line's own");
        };
        let text = error.to_string();
        assert!(
            text.starts_with("out/a.safetensors: ") && text.contains("--resume"),
            "{text}"
        );
    }
}
